"""A read-only file whose bytes are fetched by ranges."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import IO, Any

from typing_extensions import override


class RangedFile(io.RawIOBase):
    """A seekable file of known size; each read is one call of `read_range`."""

    def __init__(self, size: int) -> None:
        self._size, self._position = size, 0

    @abstractmethod
    def read_range(self, first: int, last: int) -> bytes:
        """The bytes from ``first`` to ``last``, both included. Both lie within the file."""

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    @override
    def tell(self) -> int:
        return self._position

    @override
    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        content = self.read_range(self._position, self._position + wanted - 1)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    @override
    def readall(self) -> bytes:
        # the inherited method reads 8 KiB at a time, and each would be a request
        content = bytearray(max(0, self._size - self._position))
        return bytes(memoryview(content)[: self.readinto(content)])


class ByteRange(RangedFile):
    """A part of another file, which it owns and closes."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        super().__init__(size)
        self._file, self._start = file, start

    @override
    def read_range(self, first: int, last: int) -> bytes:
        self._file.seek(self._start + first)
        return self._file.read(last - first + 1)

    @override
    def close(self) -> None:
        self._file.close()
        super().close()
