"""The server's clock. All timestamps, completion windows, file lifetimes and rate limits use it.

The clock shows real time unless it runs faster (`--speed`) or jumps ahead (`POST /admin/clock`). A test can then
watch a 24-hour window end within a second.

The clock never goes back, even if the computer's own clock does. Its state is kept in a file, and a server that is
restarted on the same state directory continues from there. After a clean stop, the clock runs at real-time speed until
the restart. A killed server cannot record the time, so the clock is assumed to have kept running at its previous speed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import msgspec


class _Anchor(msgspec.Struct, frozen=True):
    """A point from which the clock's time is computed. Times are Unix seconds."""

    real_time: float
    #: the time that the clock showed at `real_time`
    server_time: float
    speed: float

    def now(self) -> float:
        return self.server_time + max(0.0, time.time() - self.real_time) * self.speed


class Clock:
    """A clock whose state is kept in a file.

    :param path: the file.
    :param speed: server seconds per real second, greater than 0.
    """

    def __init__(self, path: Path, speed: float = 1.0) -> None:
        self._path = path
        self._jump = asyncio.Event()
        real_time = time.time()
        server_time = real_time
        with suppress(FileNotFoundError):
            server_time = max(real_time, msgspec.json.decode(path.read_bytes(), type=_Anchor).now())
        self._set_anchor(_Anchor(real_time, server_time, speed))

    def _set_anchor(self, anchor: _Anchor) -> None:
        self._anchor = anchor
        self._latest = anchor.server_time
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(anchor))
        temporary.replace(self._path)

    @property
    def speed(self) -> float:
        """Server seconds per real second."""
        return self._anchor.speed

    def now(self) -> float:
        """Return the server's time in Unix seconds."""
        self._latest = max(self._latest, self._anchor.now())
        return self._latest

    def seconds(self) -> int:
        """Return the server's time in whole Unix seconds, as API objects contain it."""
        return int(self.now())

    def advance(self, seconds: float) -> None:
        """Jump ahead by `seconds` and wake every sleeper that is then due."""
        self._set_anchor(_Anchor(time.time(), self.now() + seconds, self.speed))
        jump, self._jump = self._jump, asyncio.Event()
        jump.set()

    def stop(self) -> None:
        """Continue at real-time speed until a server is started on the same state directory."""
        self._set_anchor(_Anchor(time.time(), self.now(), 1.0))

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds` of this clock."""
        await self.sleep_until(self.now() + seconds)

    async def sleep_until(self, timestamp: float) -> None:
        """Sleep until this clock shows `timestamp`."""
        while (remaining := timestamp - self.now()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(remaining / self.speed):
                    await self._jump.wait()
