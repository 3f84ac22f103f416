"""The server's clock: every stamp, window, lifetime and hourly limit goes by it.

It shows real time unless it is told to run faster (`--speed`) or to jump ahead (`POST /admin/clock`), so that a
test sees a 24-hour window end in a second. It never goes back, and a server started again on the same state
goes on from what it showed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import msgspec


class _Anchor(msgspec.Struct, frozen=True):
    """At the real time `real` the clock showed `shown`, and ran `speed` times as fast. Unix seconds."""

    real: float
    shown: float
    speed: float

    def now(self) -> float:
        return self.shown + (time.time() - self.real) * self.speed


class Clock:
    """A clock that is kept in a file.

    :param path: where it is kept.
    :param speed: server seconds per real second, above 0.
    """

    def __init__(self, path: Path, speed: float = 1.0) -> None:
        self._path = path
        self._moved = asyncio.Event()
        real = time.time()
        shown = real
        with suppress(FileNotFoundError):
            shown = max(real, msgspec.json.decode(path.read_bytes(), type=_Anchor).now())
        self._set(_Anchor(real, shown, speed))

    def _set(self, anchor: _Anchor) -> None:
        self._anchor = anchor
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(anchor))
        new.replace(self._path)

    @property
    def speed(self) -> float:
        """Server seconds per real second."""
        return self._anchor.speed

    def now(self) -> float:
        """The server's time in Unix seconds."""
        return self._anchor.now()

    def seconds(self) -> int:
        """The server's time in whole Unix seconds, as the API shows it."""
        return int(self.now())

    def advance(self, seconds: float) -> None:
        """Jump ahead; whoever sleeps wakes if its time has come."""
        self._set(_Anchor(time.time(), self.now() + seconds, self.speed))
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep for seconds of this clock."""
        await self.sleep_until(self.now() + seconds)

    async def sleep_until(self, moment: float) -> None:
        """Sleep until this clock shows `moment`."""
        while (left := moment - self.now()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left / self.speed):
                    await self._moved.wait()
