"""A body as a form: bytes that are the same for every row, with holes that each row fills.

What is the same is encoded once, so a row costs its own values and one join. The result is the canonical JSON
of the body, byte for byte as `value.canonical` writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_batch.core.requests.template import Leaf, Values
from airflow_provider_batch.core.requests.value import SCHEMA_KEYS, UnusableError, canonical, keys


class LeafError(Exception):
    """A leaf gave no usable value for a row; its cause says why."""

    def __init__(self, leaf: Leaf) -> None:
        super().__init__(leaf.argument)
        self.leaf = leaf


class Form:
    """A tree of dicts, lists and plain values with leaves anywhere in it, ready to be filled."""

    def __init__(self, tree: dict[str, Any]) -> None:
        #: the keys at the top that have leaves
        self.filled_keys = frozenset(key for key, value in tree.items() if leaves(value))
        self._pattern: list[bytes] = [b""]
        self._holes: list[tuple[int, Leaf]] = []
        self._add(tree, sort=True)

    def fill(self, values: Values) -> tuple[bytes, list[Any]]:
        """The bytes of one row, and the values of its leaves in the order of the bytes. Raises LeafError."""
        filled = self._pattern.copy()
        given = []
        for slot, leaf in self._holes:
            value = value_of(leaf, values)
            try:
                filled[slot] = canonical(value)
            except UnusableError as error:
                raise LeafError(leaf) from error
            given.append(value)
        return b"".join(filled), given

    def marked(self) -> tuple[bytes, list[str]]:
        """The bytes with a mark for each leaf's value, and the marks: texts that nothing else in the form is."""
        filled = self._pattern.copy()
        marks = []
        for slot, _ in self._holes:
            marks.append(f"\0{slot}\0")
            filled[slot] = canonical(marks[-1])
        return b"".join(filled), marks

    def _add(self, tree: Any, *, sort: bool) -> None:
        if isinstance(tree, Leaf):
            self._holes.append((len(self._pattern), tree))
            self._pattern += [b"", b""]
        elif isinstance(tree, dict):
            self._pattern[-1] += b"{"
            for position, key in enumerate(keys(tree, sort=sort)):
                self._pattern[-1] += (b"," if position else b"") + canonical(key) + b":"
                self._add(tree[key], sort=sort and key not in SCHEMA_KEYS)
            self._pattern[-1] += b"}"
        elif isinstance(tree, list):
            self._pattern[-1] += b"["
            for position, item in enumerate(tree):
                self._pattern[-1] += b"," if position else b""
                self._add(item, sort=sort)
            self._pattern[-1] += b"]"
        else:
            self._pattern[-1] += canonical(tree)


def value_of(tree: Any, values: Values) -> Any:
    """The tree of one row, its leaves replaced by their values. Raises LeafError."""
    if type(tree) is Leaf:
        try:
            return tree.value(values)
        except LeafError:
            raise
        except Exception as error:
            raise LeafError(tree) from error
    if isinstance(tree, (dict, list)):
        return replaced(tree, Leaf, lambda leaf: value_of(leaf, values))
    return tree


def replaced(tree: Any, kind: type[Any], replace: Callable[[Any], Any]) -> Any:
    """A copy of a tree in which everything of a kind is replaced."""
    if isinstance(tree, kind):
        return replace(tree)
    if isinstance(tree, dict):
        return {key: replaced(item, kind, replace) for key, item in tree.items()}
    if isinstance(tree, list):
        return [replaced(item, kind, replace) for item in tree]
    return tree


def leaves(tree: Any) -> list[Leaf]:
    """Every leaf of a tree, in order."""
    found: list[Leaf] = []
    replaced(tree, Leaf, found.append)
    return found
