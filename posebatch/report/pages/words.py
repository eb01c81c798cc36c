"""Numbers and names in words, for pages."""

from __future__ import annotations

from typing import Final

_UNITS: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def bytes_text(size: int) -> str:
    """A size with its unit; an empty text if it is not known.

    >>> bytes_text(1_290_120), bytes_text(12), bytes_text(-1)
    ('1.3 MB', '12 bytes', '')
    """
    if size < 0:
        return ""
    return next((f"{size / unit:.1f} {name}" for name, unit in _UNITS if size >= unit), f"{size} bytes")


def duration_words(seconds: float) -> str:
    """A duration in one or two units.

    >>> duration_words(9.88), duration_words(83.84), duration_words(7260)
    ('9.9 s', '1 min 24 s', '2 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def video_name(address: str) -> str:
    """The file name in the address of a video."""
    return address.rstrip("/").rpartition("/")[2] or address
