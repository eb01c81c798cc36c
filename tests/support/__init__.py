"""Factories, fakes and servers that tests share."""
