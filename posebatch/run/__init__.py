"""One run over an archive: planning, scheduling, workers."""
