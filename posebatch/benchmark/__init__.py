"""How fast the job is on a machine, and against what: ``jobs/benchmark.py``."""
