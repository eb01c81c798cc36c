"""Options of the fault suite, and the table of its figures: ``python tests/faults/suite.py FOLDER SECONDS``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

FULL: Final = os.environ.get("POSEBATCH_FAULTS") == "full"
SEED: Final = int(os.environ.get("POSEBATCH_FAULTS_SEED", "0"))
_NOTES: Final = os.environ.get("POSEBATCH_FAULTS_FIGURES")


def note_figure(figure: str, goal: str, measured: str, kills: int = 0) -> None:
    """Add a row to the table, if ``POSEBATCH_FAULTS_FIGURES`` names a file; ``kills`` are summed over all rows."""
    if _NOTES:
        with open(_NOTES, "a", encoding="utf-8") as file:
            file.write(json.dumps({"figure": figure, "goal": goal, "measured": measured, "kills": kills}) + "\n")


def figures(folder: Path) -> list[dict[str, Any]]:
    """The rows of all tests in their order, then the kills and the coverage."""
    path = folder / "figures.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    kills = {"figure": "processes killed in all", "goal": ">= 200", "measured": str(sum(row["kills"] for row in rows))}
    return [*rows, kills, *coverage(folder)]


def coverage(folder: Path) -> list[dict[str, Any]]:
    """Branch coverage by module; empty without a measurement."""
    target = folder / "coverage.json"
    command = [sys.executable, "-m", "coverage", "json", "-q", f"--data-file={folder / 'coverage'}", "-o", str(target)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return []
    files: dict[str, Any] = json.loads(target.read_text())["files"]
    shares = {Path(path).stem: file["summary"]["percent_covered"] for path, file in files.items()}
    measured = ", ".join(f"{name} {share:.0f} %" for name, share in sorted(shares.items()))
    return [{"figure": "branch coverage", "goal": ">= 95 %", "measured": measured}]


def table(rows: list[dict[str, Any]], seconds: float) -> str:
    """The figures as a Markdown table."""
    lines = ["| | goal | measured |", "|---|---|---|"]
    lines += [f"| {row['figure']} | {row['goal']} | {row['measured']} |" for row in rows]
    lines.append(f"| the whole fault suite | under 60 minutes | {seconds / 60:.0f} minutes |")
    return "\n".join([f"Measured {datetime.now(UTC):%Y-%m-%d} by `make test-faults`:", "", *lines])


if __name__ == "__main__":
    text = table(figures(Path(sys.argv[1])), float(sys.argv[2]))
    Path(sys.argv[1], "figures.md").write_text(text + "\n", encoding="utf-8")
    print(text)
