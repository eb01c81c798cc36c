"""Planning: which videos a run has to process."""
