"""Whether the scenarios run, and the table of them: ``python tests/cluster/suite.py FILE SECONDS``."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cluster.hosts import missing

ENABLED: Final = bool(os.environ.get("POSEBATCH_CLUSTER"))
REASON_TO_SKIP: Final = missing() if ENABLED else "takes 20 minutes: make test-cluster"
_ROWS: Final = os.environ.get("POSEBATCH_CLUSTER_ROWS")


def note_row(scenario: str, repeated: str, result: str, seconds: float) -> None:
    """Add a row to the table, if ``POSEBATCH_CLUSTER_ROWS`` names a file."""
    row = {"scenario": scenario, "repeated": repeated, "result": result, "seconds": seconds}
    if _ROWS:
        with open(_ROWS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def table(path: Path, seconds: float) -> str:
    """The rows of all scenarios as a Markdown table."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    lines = ["| scenario | segments done again | result | seconds |", "|---|---|---|---|"]
    lines += [f"| {row['scenario']} | {row['repeated']} | {row['result']} | {row['seconds']:.0f} |" for row in rows]
    took = f"{len(rows)} scenarios in {seconds / 60:.0f} minutes"
    return "\n".join([f"Measured {datetime.now(UTC):%Y-%m-%d} by `make test-cluster`, {took}:", "", *lines])


if __name__ == "__main__":
    print(table(Path(sys.argv[1]), float(sys.argv[2])))
