"""Injects faults into every process of a run that has this folder on PYTHONPATH.

The plan of faults is a JSON file: ``{"marks": FOLDER, "faults": [{"at": ..., "match": REGEX, "action": ..., "times":
N}, ...], "seconds_per_frame": S}``. The last is the time that the networks take. A fault happens ``times`` times over
all processes, or always without that number. Each time creates a mark, a file in the folder with the name of the host;
only one process can create it. ``at`` is ``before put``, ``after put``, ``before delete`` or ``after delete``, where
``match`` is searched in the key, or ``probe``, ``decode`` or ``networks``, where it is searched in the address of the
video. The keys of computed segments are appended to the file ``staged`` beside the marks before they are put, and to
``stored``, with the name of the host, after that. The action ``hold`` waits for a file ``release`` beside the marks.

The networks are replaced by a reader of the numbers in the frames. Processes then start fast, because the module that
loads the networks is not executed, and each row can be checked. Everything else is real.
"""

import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import json
import os
import re
import signal
import socket
import sys
import threading
import time

PLAN = os.environ.get("POSEBATCH_TEST_INJECTION")


def take_memory():
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1 << 20)) * 64)
        time.sleep(0.05)


def spin():
    while True:
        pass


def fail_as_cuda_does():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def hold():
    while not os.path.exists(os.path.join(read_plan()["marks"], "release")):
        time.sleep(0.05)


ACTIONS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(30)),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "sleep": lambda: time.sleep(10_000),
    "spin": spin,
    "stand still": lambda: ctypes.PyDLL(None).sleep(10_000),
    "take memory": take_memory,
    "hold": hold,
    "fail as CUDA does": fail_as_cuda_does,
}


def read_plan():
    with open(PLAN) as file:
        return json.load(file)


def inject(point, name):
    """Inject the faults that the plan has for this point."""
    plan = read_plan()
    for number, fault in enumerate(plan["faults"]):
        is_due = fault["at"] == point and re.search(fault["match"], name)
        if is_due and claim_mark(plan["marks"], number, fault.get("times")):
            ACTIONS[fault["action"]]()


def claim_mark(marks, number, times):
    """Create the next mark of a fault; False when it has happened often enough."""
    for count in range(times if times is not None else 10_000):
        with contextlib.suppress(FileExistsError):
            mark = os.open(os.path.join(marks, f"{number}.{count}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.write(mark, socket.gethostname().encode())
            os.close(mark)
            return True
    return False


def injecting(method, act):
    def injected(self, key, *arguments):
        inject(f"before {act}", key)
        is_segment = act == "put" and "/staging/" in key
        if is_segment:
            note("staged", f"{key}\n")
        result = method(self, key, *arguments)
        if is_segment:
            note("stored", f"{key} {socket.gethostname()}\n")
        inject(f"after {act}", key)
        return result

    return injected


def note(name, line):
    with open(os.path.join(read_plan()["marks"], name), "a") as file:
        file.write(line)


def patch_store(module):
    for store in (value for name, value in vars(module).items() if name in ("LocalStore", "S3Store")):
        for name, act in (("put", "put"), ("put_if", "put"), ("delete", "delete")):
            setattr(store, name, injecting(getattr(store, name), act))


def patch_decoder(module):
    decode = module.SegmentDecoder._batches

    def batches(self):
        for number, batch in enumerate(decode(self)):
            if number == 1:
                inject("decode", self.name)
            yield batch

    module.SegmentDecoder._batches = batches


def patch_tasks(module):
    probe = module.probe

    def probed(file, name, *arguments, **named):
        inject("probe", name)
        return probe(file, name, *arguments, **named)

    module.probe = probed


def replace_estimator(module):
    import_for_number_reader()
    module.PoseEstimator = NumberReader


class NumberReader:
    """A frame that shows the number n has n % 3 persons, who move slowly: the linker follows them."""

    placement = type("Placement", (), {"device": "cpu", "__str__": lambda _: "number reader"})()
    batch_frames = 4

    @classmethod
    def load(cls, *_):
        return cls()

    def estimate(self, batches, clock):
        for batch in batches:
            inject("networks", heartbeat._steps[threading.get_ident()].subject)
            images = iter(batch.images)
            time.sleep(len(batch.records) * read_plan()["seconds_per_frame"])
            for record in batch.records:
                yield self.read(record, next(images) if record.status == "ok" else None)

    def read(self, record, image):
        try:
            number = frame_number(image)
        except (AttributeError, ValueError):  # an undecodable or a damaged frame
            number = 0
        persons = np.arange(number % 3, dtype=np.float32)
        left = 10 + 200 * persons + number / 10
        boxes = np.stack([left, 0 * left, left + 40, 0 * left + 90], axis=1)
        joints = np.stack([*np.meshgrid(left + 20, np.arange(17, dtype=np.float32) * 5, indexing="ij")], axis=2)
        keypoints = np.concatenate([joints, np.full_like(joints[:, :, :1], 0.9)], axis=2)
        scores = np.full(len(persons), 0.9, np.float32)
        return FramePoses(record, boxes, scores, scores, keypoints)


def patch_lease(module):
    if os.environ.get("POSEBATCH_TEST_NO_LEASE"):
        assert module.hold_lease
        module.hold_lease = lambda *_, **__: contextlib.nullcontext()


PATCHES = {
    "posebatch.storage.local": patch_store,
    "posebatch.storage.s3": patch_store,
    "posebatch.video.segment_decoder": patch_decoder,
    "posebatch.run.workers.video_tasks": patch_tasks,
    "posebatch.run.workers.clip_worker": patch_tasks,
    "posebatch.dataset.lease": patch_lease,
}


REPLACED = {"posebatch.pose.estimator": replace_estimator}


class Patching(importlib.abc.MetaPathFinder):
    """Patches modules of `PATCHES` after they were executed, and replaces those of `REPLACED`."""

    def find_spec(self, name, path, target=None):
        if name not in PATCHES and name not in REPLACED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if name in REPLACED:
            spec.loader.exec_module = REPLACED[name]
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            PATCHES[name](module)

        spec.loader.exec_module = exec_module
        return spec


def import_for_number_reader():
    """Import late: every process executes this file at its start."""
    global FramePoses, frame_number, np, heartbeat  # noqa: PLW0603
    import numpy as np  # noqa: PLC0415
    from support.factories import frame_number  # noqa: PLC0415

    from posebatch.core.frames import FramePoses  # noqa: PLC0415
    from posebatch.run.workers.heartbeat import heartbeat  # noqa: PLC0415


if PLAN:
    sys.meta_path.insert(0, Patching())
