"""Weight files: their names, records, download, conversion."""
