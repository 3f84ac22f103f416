"""The server's clock: every stamp, window, lifetime and hourly limit goes by it.

It shows real time unless it is told to run faster (`--speed`) or to jump ahead (`POST /admin/clock`), so that a
test sees a 24-hour window end in a second. It never goes back, not even if the computer's own clock does, and a
server started again on the same state goes on from what it showed. While the server is away it runs as real time
does; after a kill, as nothing says what it showed last, as fast as before.
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
        return self.shown + max(0.0, time.time() - self.real) * self.speed


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
        self._latest = anchor.shown
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(anchor))
        new.replace(self._path)

    @property
    def speed(self) -> float:
        """Server seconds per real second."""
        return self._anchor.speed

    def now(self) -> float:
        """The server's time in Unix seconds."""
        self._latest = max(self._latest, self._anchor.now())
        return self._latest

    def seconds(self) -> int:
        """The server's time in whole Unix seconds, as the API shows it."""
        return int(self.now())

    def advance(self, seconds: float) -> None:
        """Jump ahead; whoever sleeps wakes if its time has come."""
        self._set(_Anchor(time.time(), self.now() + seconds, self.speed))
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def stop(self) -> None:
        """Let real time pass from now on, until a server is started on the same state."""
        self._set(_Anchor(time.time(), self.now(), 1.0))

    async def sleep(self, seconds: float) -> None:
        """Sleep for seconds of this clock."""
        await self.sleep_until(self.now() + seconds)

    async def sleep_until(self, moment: float) -> None:
        """Sleep until this clock shows `moment`."""
        while (left := moment - self.now()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left / self.speed):
                    await self._moved.wait()
