"""Faults from within: with this folder on PYTHONPATH, every process of a run does as the plan in a file says.

The plan is JSON: ``{"marks": FOLDER, "deeds": [{"at": ..., "match": REGEX, "deed": ..., "times": N}, ...],
"seconds_per_frame": S}``, where the last says how slow the networks are. A deed is done where it says, ``times`` times
in all processes together (always, when it says nothing): each time leaves a mark in the folder, whose making only one
process can succeed in. Places are ``before put``, ``after put``, ``before delete``, ``after delete`` (matched against
the key), and ``probe``, ``decode``, ``networks`` (against the video's address). All that is staged is noted in the file
``staged`` beside the marks.

The networks are replaced by something that reads the numbers in the frames, so that a process starts fast (the module
that would load them is not even executed) and each row can be checked. All else is real.
"""

import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import json
import os
import re
import signal
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


DEEDS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(30)),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "sleep": lambda: time.sleep(10_000),
    "spin": spin,
    "stand still": lambda: ctypes.PyDLL(None).sleep(10_000),
    "take memory": take_memory,
    "fail as CUDA does": fail_as_cuda_does,
}


def read_plan():
    with open(PLAN) as file:
        return json.load(file)


def meet(place, name):
    """Do what the plan says of this place."""
    plan = read_plan()
    for number, deed in enumerate(plan["deeds"]):
        if deed["at"] == place and re.search(deed["match"], name) and may(plan["marks"], number, deed.get("times")):
            DEEDS[deed["deed"]]()


def may(marks, number, times):
    """Whether this deed is to be done once more."""
    for time_ in range(times if times is not None else 10_000):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(os.path.join(marks, f"{number}.{time_}"), os.O_CREAT | os.O_EXCL))
            return True
    return False


def around(method, act):
    def meeting(self, key, *arguments):
        meet(f"before {act}", key)
        if act == "put" and "/staging/" in key:
            note_staged(key)
        result = method(self, key, *arguments)
        meet(f"after {act}", key)
        return result

    return meeting


def note_staged(key):
    with open(os.path.join(read_plan()["marks"], "staged"), "a") as file:
        file.write(key + "\n")


def patch_store(module):
    for store in (value for name, value in vars(module).items() if name in ("LocalStore", "S3Store")):
        for name, act in (("put", "put"), ("put_if", "put"), ("delete", "delete")):
            setattr(store, name, around(getattr(store, name), act))


def patch_decoder(module):
    decode = module.SegmentDecoder._batches

    def batches(self):
        for number, batch in enumerate(decode(self)):
            if number == 1:
                meet("decode", self.name)
            yield batch

    module.SegmentDecoder._batches = batches


def patch_tasks(module):
    probe = module.probe

    def probed(file, name, *arguments, **named):
        meet("probe", name)
        return probe(file, name, *arguments, **named)

    module.probe = probed


def replace_estimator(module):
    import_what_readers_need()
    module.PoseEstimator = Readers


class Readers:
    """In a frame that shows the number n, n % 3 persons stand at n."""

    placement = type("Placement", (), {"device": "cpu", "__str__": lambda _: "readers"})()
    batch_frames = 4

    @classmethod
    def load(cls, *_):
        return cls()

    def estimate(self, batches, clock):
        for batch in batches:
            meet("networks", heartbeat._steps[threading.get_ident()].subject)
            images = iter(batch.images)
            time.sleep(len(batch.records) * read_plan()["seconds_per_frame"])
            for record in batch.records:
                yield self.read(record, next(images) if record.status == "ok" else None)

    def read(self, record, image):
        try:
            number = frame_number(image)
        except (AttributeError, ValueError):  # no frame, or one that is smeared
            number = 0
        shapes = ((4,), (), (), (17, 3))
        return FramePoses(record, *(np.full((number % 3, *shape), number, np.float32) for shape in shapes))


def patch_lease(module):
    if os.environ.get("POSEBATCH_TEST_NO_LEASE"):
        assert module.hold_lease
        module.hold_lease = lambda *_, **__: contextlib.nullcontext()


PATCHES = {
    "posebatch.storage.local": patch_store,
    "posebatch.storage.s3": patch_store,
    "posebatch.video.segment_decoder": patch_decoder,
    "posebatch.run.workers.video_tasks": patch_tasks,
    "posebatch.dataset.lease": patch_lease,
}


REPLACED = {"posebatch.pose.estimator": replace_estimator}


class Patching(importlib.abc.MetaPathFinder):
    """Patches the modules in question once they have been loaded, or puts something else in their place."""

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


def import_what_readers_need():
    """Only where they are used: every process begins with this file."""
    global FramePoses, frame_number, np, heartbeat  # noqa: PLW0603
    import numpy as np  # noqa: PLC0415
    from support.factories import frame_number  # noqa: PLC0415

    from posebatch.core.frames import FramePoses  # noqa: PLC0415
    from posebatch.run.workers.heartbeat import heartbeat  # noqa: PLC0415


if PLAN:
    sys.meta_path.insert(0, Patching())
