"""The version of posebatch, defined only here."""

__version__ = "0.1.0"
