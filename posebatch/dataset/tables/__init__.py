"""The tables of a dataset: schemas, rows, files, readers, checks."""
