"""The limits of a server: enqueued tokens per model, and calls per period of time."""

from __future__ import annotations

import heapq
from collections import Counter, deque

from airflow_provider_batch.local.clock import Clock


class TokenQueue:
    """The enqueued input tokens of each model, as estimates.

    OpenAI counts the tokens of a batch until it has ended, and sometimes for a while longer (openai-python issue 2084).
    `release_after` is this extra time, in seconds.
    """

    def __init__(self, clock: Clock, limit: int | None, release_after: float) -> None:
        self._clock = clock
        self.limit = limit
        self.release_after = release_after
        self._tokens: Counter[str] = Counter()
        #: Batches that have ended but still count: until when, model, tokens. A heap, because after a restart the
        #: batches are added in any order.
        self._releases: list[tuple[float, str, int]] = []

    def fits(self, model: str, tokens: int) -> bool:
        """Return whether this many more tokens can be enqueued."""
        return self.limit is None or self.enqueued_tokens(model) + tokens <= self.limit

    def enqueued_tokens(self, model: str) -> int:
        """Return the enqueued tokens of this model."""
        while self._releases and self._releases[0][0] <= self._clock.now():
            _, name, tokens = heapq.heappop(self._releases)
            self._tokens[name] -= tokens
        return self._tokens[model]

    def add(self, model: str, tokens: int) -> None:
        """Enqueue the tokens of a batch that starts."""
        self._tokens[model] += tokens

    def release(self, model: str, tokens: int, ended_at: float) -> None:
        """Stop counting the tokens of a batch, `release_after` seconds after it ended.

        :param ended_at: when the batch ended, by the server's clock.
        """
        heapq.heappush(self._releases, (ended_at + self.release_after, model, tokens))


class RateLimit:
    """Allows at most `limit` calls in any period of `seconds`. A limit of None allows all calls."""

    def __init__(self, clock: Clock, limit: int | None, seconds: float) -> None:
        self._clock = clock
        self.limit = limit
        self._seconds = seconds
        self._calls: deque[float] = deque()

    def restore(self, calls: list[float]) -> None:
        """Count calls from before a restart of the server, oldest first."""
        self._calls.extend(calls)

    def acquire(self) -> float:
        """Count a call and return 0, or return the seconds of the server's clock until the next call is allowed."""
        if self.limit is None:
            return 0.0
        now = self._clock.now()
        while self._calls and self._calls[0] <= now - self._seconds:
            self._calls.popleft()
        if len(self._calls) < self.limit:
            self._calls.append(now)
            return 0.0
        # the next call is allowed when this earlier call is older than the period
        return self._calls[len(self._calls) - self.limit] + self._seconds - now
