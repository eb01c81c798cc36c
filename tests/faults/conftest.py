"""Lets the fault tests use what the other tests are built on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
