"""The tree of errors that the docstring of the module shows."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_batch import exceptions
from airflow_provider_batch.exceptions import BatchError


def tree_lines(error: type[BatchError], depth: int = 1) -> Iterator[str]:
    """Yield a line for an error and for each error below it. An asterisk marks those that a retry cannot fix."""
    yield "    " * depth + error.__name__ + ("" if error.retry else " *")
    for subclass in error.__subclasses__():
        yield from tree_lines(subclass, depth + 1)


def test_the_docstring_shows_the_tree_of_classes() -> None:
    tree = "\n".join(tree_lines(BatchError))
    assert f"\n\n{tree}\n\n" in (exceptions.__doc__ or ""), f"The docstring should show:\n{tree}"


def test_every_error_of_the_module_is_in_the_tree() -> None:
    names = {line.split()[0] for line in tree_lines(BatchError)}
    assert names == set(exceptions.__all__)
