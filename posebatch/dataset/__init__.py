"""The published dataset: layout, publication, tables, verification, removal of unreferenced objects."""
