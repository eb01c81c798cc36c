"""Words in messages."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun in the right number; ``plural`` is for nouns whose plural has no plain s.

    >>> counted(1, "frame"), counted(0, "frame"), counted(2, "entry", "entries")
    ('1 frame', '0 frames', '2 entries')
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
