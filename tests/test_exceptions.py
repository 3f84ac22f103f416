"""The tree of errors, as its module draws it."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_batch import exceptions
from airflow_provider_batch.exceptions import BatchError


def drawing(error: type[BatchError], depth: int = 1) -> Iterator[str]:
    """An error and the errors below it, one a line; an asterisk marks those that a retry cannot help."""
    yield "    " * depth + error.__name__ + ("" if error.retry else " *")
    for below in error.__subclasses__():
        yield from drawing(below, depth + 1)


def test_the_docstring_draws_the_tree_of_the_classes() -> None:
    tree = "\n".join(drawing(BatchError))
    assert f"\n\n{tree}\n\n" in (exceptions.__doc__ or ""), f"the drawing should be:\n{tree}"


def test_every_error_of_the_module_is_in_the_tree() -> None:
    names = {line.split()[0] for line in drawing(BatchError)}
    assert names == set(exceptions.__all__)
