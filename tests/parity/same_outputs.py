"""Prove that two versions of the code publish the same bytes.

    python tests/parity/same_outputs.py record CHECKOUT FOLDER VIDEO...    what this checkout publishes and prints
    python tests/parity/same_outputs.py compare BEFORE AFTER               1 when anything but a timing differs
    python tests/parity/same_outputs.py resume CHECKOUT FOLDER VIDEO...    1 when the checkout computes a video anew

`record` runs the sample and the videos with GIFs, then keeps the help of each command, `models` and `plan`.
`resume` runs a recorded folder again with another checkout, which must find every video done.
Outputs hold the address of their source, so each run happens in the same folder, which is then moved.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

TIMINGS = ("decode_seconds", "detect_seconds", "pose_seconds", "total_seconds", "wait_seconds")
OF_A_RUN = ("run_id", *TIMINGS)
WORKPLACE = Path(tempfile.gettempdir(), "posebatch-same-outputs")
COMMANDS = ("run", "plan", "verify", "gc", "models", "demo")
OPTIONS = ("--preview", "gif", "--segment-seconds", "4")
MAIN = "import sys; from posebatch.cli import main; sys.exit(main())"
WRITE_SAMPLE = """
import pathlib, sys
try:
    from posebatch.demo.sample import write_sample
except ImportError:
    from posebatch.sample import write_sample
write_sample(pathlib.Path(sys.argv[1]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["record", "compare", "resume"])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("videos", type=Path, nargs="*")
    chosen = parser.parse_args()
    if chosen.action == "compare":
        return compare(chosen.before, chosen.after)
    if chosen.action == "record":
        return record(chosen.before.resolve(), chosen.after.resolve(), chosen.videos)
    return resume(chosen.before.resolve(), chosen.after.resolve())


def record(checkout: Path, folder: Path, videos: list[Path]) -> int:
    (WORKPLACE / "texts").mkdir(parents=True)
    (WORKPLACE / "input").mkdir()
    call(checkout, ["-c", WRITE_SAMPLE, "input/sample.mp4"])
    for video in videos:
        shutil.copy(video, WORKPLACE / "input" / video.name)
    for path in (WORKPLACE / "input").iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))  # the time of a local file is a part of its etag
    for command in COMMANDS:
        keep(f"help_{command}", posebatch(checkout, command, "--help"))
    keep("models", posebatch(checkout, "models"))
    keep("plan_before", posebatch(checkout, "plan", "input", "--output", "dataset", *OPTIONS))
    print(posebatch(checkout, "run", "input", "--output", "dataset", *OPTIONS).stdout)
    keep("plan_after", posebatch(checkout, "plan", "input", "--output", "dataset", *OPTIONS))
    keep("verify", posebatch(checkout, "verify", "--output", "dataset", "--deep"))
    WORKPLACE.rename(folder)
    return 0


def resume(checkout: Path, folder: Path) -> int:
    shutil.copytree(folder, WORKPLACE, copy_function=shutil.copy2)
    done = posebatch(checkout, "run", "input", "--output", "dataset", *OPTIONS)
    shutil.rmtree(WORKPLACE)
    print(done.stdout, done.stderr)
    return 0 if re.search(r"^0 published, [1-9]\d* up to date, 0 failed", done.stdout, re.MULTILINE) else 1


def compare(before: Path, after: Path) -> int:
    differences = [name for name in sorted(files(before) | files(after)) if not same(before / name, after / name)]
    print(
        f"{len(files(before))} files before, {len(files(after))} after, {len(differences)} differ",
        *differences,
        sep="\n",
    )
    return 1 if differences else 0


def files(folder: Path) -> set[str]:
    """Everything that must be equal: published data, tables of videos, texts."""
    kept = [path for path in folder.rglob("*") if path.is_file()]
    names = {str(path.relative_to(folder)) for path in kept}
    return {
        name
        for name in names
        if name.startswith(("texts/", "dataset/poses", "dataset/frames", "dataset/previews", "dataset/videos"))
    }


def same(before: Path, after: Path) -> bool:
    if not before.exists() or not after.exists():
        return False
    if "dataset/videos" in str(before):
        return without_timings(before) == without_timings(after)
    return before.read_bytes() == after.read_bytes()


def without_timings(table: Path) -> list[dict[str, object]]:
    """Rows of a table of videos, but for what belongs to the run alone."""
    read = pq.read_table(table, partitioning=None)
    schema = {"schema": str(read.schema.remove_metadata())}
    return [
        schema,
        *({column: value for column, value in row.items() if column not in OF_A_RUN} for row in read.to_pylist()),
    ]


def keep(name: str, done: subprocess.CompletedProcess[str]) -> None:
    text = f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    (WORKPLACE / "texts" / f"{name}.txt").write_text(text)


def posebatch(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(checkout, ["-c", MAIN, *arguments])


def call(checkout: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-P", *arguments], cwd=WORKPLACE, env=environment, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
