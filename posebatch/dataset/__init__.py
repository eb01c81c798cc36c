"""The published dataset: layout, publication, verification, clean-up."""
