"""A request body as a form: bytes that are the same for every row, with holes for the values of each row.

The constant parts are encoded once, so a row only costs the encoding of its own values and one join. The result is
the canonical JSON of the body, byte for byte what `value.canonical_json` would write.

A body is a tree of dicts, lists and plain values. A `Leaf` stands wherever the value depends on the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

from airflow_provider_batch.core.requests.template import Leaf, Values
from airflow_provider_batch.core.requests.value import (
    SCALARS,
    SCHEMA_KEYS,
    UnusableValueError,
    canonical_json,
    canonical_json_of_all,
    ordered_keys,
)


class LeafError(Exception):
    """Raised when a leaf has no usable value for a row. Its `__cause__` is the reason."""

    def __init__(self, leaf: Leaf) -> None:
        super().__init__(leaf.argument)
        self.leaf = leaf


class Form:
    """A body, encoded up to the values of its leaves."""

    def __init__(self, tree: dict[str, Any]) -> None:
        #: top-level keys whose value contains a leaf
        self.row_keys = frozenset(key for key, value in tree.items() if leaves(value))
        self._pattern: list[bytes] = [b""]
        self._holes: list[tuple[int, Leaf]] = []
        self._add(tree, sort=True)

    def fill(self, rows: Sequence[Values]) -> tuple[list[bytes], list[tuple[Any, ...]]]:
        """Return the body of each row, and the values of its leaves in the order of the body. Raises LeafError."""
        parts: list[Iterable[bytes]] = [repeat(part, len(rows)) for part in self._pattern]
        leaf_columns: list[list[Any]] = []
        for slot, leaf in self._holes:
            values = evaluate_all(leaf, rows)
            try:
                parts[slot] = canonical_json_of_all(values)
            except UnusableValueError as error:
                raise LeafError(leaf) from error
            leaf_columns.append(values)
        leaf_values = list(zip(*leaf_columns, strict=True)) if leaf_columns else [()] * len(rows)
        return list(map(b"".join, zip(*parts, strict=True))), leaf_values

    @property
    def body_bytes(self) -> int:
        """Size of the body without its leaves."""
        return sum(map(len, self._pattern))

    def fill_with_markers(self) -> tuple[bytes, list[str]]:
        """Return the body with a marker in place of each leaf, and the markers.

        A marker is a text that occurs nowhere else in the body.
        """
        parts = self._pattern.copy()
        markers = []
        for slot, _ in self._holes:
            markers.append(f"\0{slot}\0")
            parts[slot] = canonical_json(markers[-1])
        return b"".join(parts), markers

    def _add(self, tree: Any, *, sort: bool) -> None:
        if isinstance(tree, Leaf):
            self._holes.append((len(self._pattern), tree))
            self._pattern += [b"", b""]
        elif isinstance(tree, dict):
            self._pattern[-1] += b"{"
            for position, key in enumerate(ordered_keys(tree, sort=sort)):
                self._pattern[-1] += (b"," if position else b"") + canonical_json(key) + b":"
                self._add(tree[key], sort=sort and key not in SCHEMA_KEYS)
            self._pattern[-1] += b"}"
        elif isinstance(tree, list):
            self._pattern[-1] += b"["
            for position, item in enumerate(tree):
                self._pattern[-1] += b"," if position else b""
                self._add(item, sort=sort)
            self._pattern[-1] += b"]"
        else:
            self._pattern[-1] += canonical_json(tree)


def evaluate(tree: Any, row: Values) -> Any:
    """Return the tree of one row, with the leaves replaced by their values. Raises LeafError."""
    if type(tree) is Leaf:
        return evaluate_all(tree, [row])[0]
    if isinstance(tree, (dict, list)):
        return replace_nodes(tree, Leaf, lambda leaf: evaluate(leaf, row))
    return tree


def evaluate_all(tree: Any, rows: Sequence[Values]) -> list[Any]:
    """Return the tree of each row, with the leaves replaced by their values.

    Raises LeafError, which does not tell for which row.
    """
    if type(tree) in SCALARS:
        return [tree] * len(rows)
    if type(tree) is not Leaf:
        return [evaluate(tree, row) for row in rows]
    try:
        return tree.values(rows)
    except LeafError:
        raise
    except Exception as error:
        raise LeafError(tree) from error


def replace_nodes(tree: Any, kind: type[Any], replace: Callable[[Any], Any]) -> Any:
    """Return a copy of the tree in which `replace` is applied to every node of type `kind`."""
    if isinstance(tree, kind):
        return replace(tree)
    if isinstance(tree, dict):
        return {key: replace_nodes(item, kind, replace) for key, item in tree.items()}
    if isinstance(tree, list):
        return [replace_nodes(item, kind, replace) for item in tree]
    return tree


def leaves(tree: Any) -> list[Leaf]:
    """Return the leaves of a tree, in order."""
    result: list[Leaf] = []
    replace_nodes(tree, Leaf, result.append)
    return result
