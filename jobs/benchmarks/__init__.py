"""Benchmarks of the job and its parts: see ``jobs/benchmark.py``."""
