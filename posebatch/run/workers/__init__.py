"""The work of a run, in the processes of Ray."""
