"""Items in a temporary file, so that grading takes the same memory for any number of answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")

#: up to this size, in bytes, everything stays in memory
_MAX_MEMORY = 4_000_000
#: size of the length before each item, in bytes
_LENGTH = 4


class Spool(Generic[Item]):
    """A list that is only appended to and read in order, any number of times. Use it in a `with` block.

    :param type_: type of the items, which msgspec can encode.
    """

    def __init__(self, type_: type[Item]) -> None:
        self._encoder, self._decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(type_)
        self._file = tempfile.SpooledTemporaryFile(_MAX_MEMORY, prefix="grades-")  # noqa: SIM115 - `__exit__` closes it
        self._size = self._count = 0

    def __enter__(self) -> Spool[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        position = 0
        while position < self._size:
            self._file.seek(position)
            length = int.from_bytes(self._file.read(_LENGTH), "big")
            yield self._decoder.decode(self._file.read(length))
            position += _LENGTH + length

    def append(self, item: Item) -> None:
        """Add an item at the end."""
        content = self._encoder.encode(item)
        self._file.seek(self._size)
        self._file.write(len(content).to_bytes(_LENGTH, "big") + content)
        self._size += _LENGTH + len(content)
        self._count += 1
