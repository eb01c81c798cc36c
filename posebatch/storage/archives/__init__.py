"""Members of ZIP and TAR archives, read by byte ranges without unpacking."""
