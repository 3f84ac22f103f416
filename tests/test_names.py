"""Names are nouns for things and verbs for functions: a bare participle or pronoun names neither."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: words that say nothing about the thing they name
VAGUE_WORDS = frozenset(
    [
        "again",
        "anew",
        "asked",
        "begun",
        "done",
        "found",
        "given",
        "it",
        "kept",
        "known",
        "made",
        "one",
        "ones",
        "rest",
        "said",
        "seen",
        "shown",
        "something",
        "such",
        "taken",
        "that",
        "there",
        "thing",
        "things",
        "this",
        "told",
        "tried",
        "twin",
        "wanted",
        "wave",
        "what",
        "whatever",
        "which",
        "who",
        "whom",
    ]
)


def bindings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the name and line of everything that the module binds: definitions, arguments, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno


@pytest.mark.parametrize("folder", ["airflow_provider_batch", "benchmarks", "dags"])
def test_no_name_is_a_bare_participle_or_pronoun(folder: str) -> None:
    vague_names = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in bindings(ast.parse(path.read_text(encoding="utf-8")))
        if name.strip("_").lower() in VAGUE_WORDS
    ]
    assert vague_names == []
