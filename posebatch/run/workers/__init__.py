"""The work of a run: what the driver asks of other processes, and the Ray actors that do it."""
