"""What a server has room for: tokens waiting per model, and calls in a span of time."""

from __future__ import annotations

import heapq
from collections import Counter, deque

from airflow_provider_batch.local.clock import Clock


class TokenQueue:
    """Estimated input tokens that wait, per model.

    OpenAI counts a batch's tokens until it has ended, and is known to go on counting them for a while after
    (openai-python issue 2084); `release_after` is that while, in seconds.
    """

    def __init__(self, clock: Clock, limit: int | None, release_after: float) -> None:
        self._clock = clock
        self.limit = limit
        self.release_after = release_after
        self._waiting: Counter[str] = Counter()
        #: what has ended and still counts: until when, model, tokens; a heap, as a restart recalls it in any order
        self._ended: list[tuple[float, str, int]] = []

    def fits(self, model: str, tokens: int) -> bool:
        """Whether so many more tokens may wait."""
        return self.limit is None or self.waiting(model) + tokens <= self.limit

    def waiting(self, model: str) -> int:
        """The tokens of this model that count now."""
        while self._ended and self._ended[0][0] <= self._clock.now():
            _, name, tokens = heapq.heappop(self._ended)
            self._waiting[name] -= tokens
        return self._waiting[model]

    def add(self, model: str, tokens: int) -> None:
        """A batch with so many tokens runs."""
        self._waiting[model] += tokens

    def release(self, model: str, tokens: int, ended: float) -> None:
        """That batch ended at this time of the server's clock."""
        heapq.heappush(self._ended, (ended + self.release_after, model, tokens))


class RateLimit:
    """At most `limit` calls in any span of `seconds`; None means as many as one likes."""

    def __init__(self, clock: Clock, limit: int | None, seconds: float) -> None:
        self._clock = clock
        self.limit = limit
        self._seconds = seconds
        self._calls: deque[float] = deque()

    def restore(self, calls: list[float]) -> None:
        """Count calls of an earlier life of the server, oldest first."""
        self._calls.extend(calls)

    def acquire(self) -> float:
        """Seconds of the server's clock until a call is allowed; 0 if it is now, and then it is counted."""
        if self.limit is None:
            return 0.0
        now = self._clock.now()
        while self._calls and self._calls[0] <= now - self._seconds:
            self._calls.popleft()
        if len(self._calls) < self.limit:
            self._calls.append(now)
            return 0.0
        # The call that must leave the span before there is room for one more.
        return self._calls[len(self._calls) - self.limit] + self._seconds - now
