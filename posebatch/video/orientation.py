"""How a stored picture is turned and mirrored to be displayed: the display matrix of its container.

The matrix maps stored coordinates to displayed ones, ``x' = a x + c y``, ``y' = b x + d y`` (ISO/IEC 14496-12, 6.2.2;
16.16 fixed point). Eight of these matrices keep pixels as they are: four quarter turns, each of them mirrored or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FIXED_POINT: Final = 1 << 16

TOLERANCE: Final = 0.01
"""Share of the scale by which an entry may be off, by rounding of writers."""


@dataclass(frozen=True)
class Orientation:
    """One of the eight: rows and columns are exchanged first, then the picture is mirrored."""

    transposed: bool = False
    mirrored_x: bool = False
    """Left and right are exchanged."""
    mirrored_y: bool = False
    """Top and bottom are exchanged."""

    @classmethod
    def of_matrix(cls, matrix: bytes) -> Orientation | None:
        """The orientation of a display matrix, nine 32-bit integers; None for a shear, a zoom, or another rotation.

        >>> half_turn = np.array([-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30], np.int32)
        >>> Orientation.of_matrix(half_turn.tobytes())
        Orientation(transposed=False, mirrored_x=True, mirrored_y=True)
        """
        a, b, _, c, d, *_ = (np.frombuffer(matrix, np.int32) / FIXED_POINT).tolist()
        if _is_zero(b, c) and _is_one(abs(a), abs(d)):
            return cls(False, a < 0, d < 0)
        if _is_zero(a, d) and _is_one(abs(b), abs(c)):
            return cls(True, c < 0, b < 0)
        return None

    @classmethod
    def nearest(cls, matrix: bytes) -> Orientation:
        """The orientation that comes nearest to a display matrix."""
        a, b, _, c, d, *_ = (np.frombuffer(matrix, np.int32) / FIXED_POINT).tolist()
        transposed = abs(b) + abs(c) > abs(a) + abs(d)
        return cls(True, c < 0, b < 0) if transposed else cls(False, a < 0, d < 0)

    @classmethod
    def of_rotation(cls, degrees: int, mirrored: bool = False) -> Orientation:
        """The orientation with this `rotation`, mirrored left to right after it or not."""
        turned = {0: cls(), 90: cls(True, True, False), 180: cls(False, True, True), 270: cls(True, False, True)}
        base = turned[degrees % 360]
        return cls(base.transposed, base.mirrored_x != mirrored, base.mirrored_y)

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right of the stored picture are exchanged in the displayed one."""
        return self.quarter_turns is None

    @property
    def rotation(self) -> int:
        """Clockwise rotation for display, degrees; of a mirrored picture before it is mirrored left to right."""
        unmirrored = Orientation(self.transposed, self.mirrored_x != self.is_mirrored, self.mirrored_y)
        return -90 * (unmirrored.quarter_turns or 0) % 360

    @property
    def quarter_turns(self) -> int | None:
        """Counter-clockwise quarter turns, as `numpy.rot90` counts them; None for a mirrored picture."""
        turns = {(False, False, False): 0, (True, False, True): 1, (False, True, True): 2, (True, True, False): 3}
        return turns.get((self.transposed, self.mirrored_x, self.mirrored_y))

    def displayed(self, image: NDArray[Any]) -> NDArray[Any]:
        """The picture (height, width, ...) as it is displayed; a view of the same memory."""
        turned = image.swapaxes(0, 1) if self.transposed else image
        return turned[:: -1 if self.mirrored_y else 1, :: -1 if self.mirrored_x else 1]


UPRIGHT: Final = Orientation()


def _is_zero(*entries: float) -> bool:
    return all(abs(entry) <= TOLERANCE for entry in entries)


def _is_one(*entries: float) -> bool:
    return all(abs(entry - 1) <= TOLERANCE for entry in entries)
