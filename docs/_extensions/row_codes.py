"""Finds the error codes that the package itself gives to rows, in its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "airflow_provider_batch"
#: functions and classes that take a code, and the position of that argument
CALLS = {"UnusableFileError": 0, "_with_outcome": 2, "_failed_response": 1, "SynchronousResponse": 3}
#: parts of the package that give no codes to rows
OTHER_FOLDERS = frozenset({"local", "demo", "evals", "example_dags"})


@cache
def row_codes() -> frozenset[str]:
    """Return all codes. A code with a variable part has a star in its place, such as `http_*`."""
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in OTHER_FOLDERS
    ]
    constants = {
        target.id: node.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant)
    }
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return frozenset(code for node in nodes for value in _values(node) for code in _texts(value, constants))


def _values(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions in a node that are the code of a row."""
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "error_code")
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        position = CALLS.get(name)
        if position is not None and len(node.args) > position:
            yield node.args[position]
    elif isinstance(node, ast.Dict):
        # the line of a synchronous request has a code in place of the provider's
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        if keys == ["code", "message"]:
            yield node.values[0]
    elif isinstance(node, ast.FunctionDef) and node.name == "_failed_response":
        yield from (part for part in ast.walk(node) if isinstance(part, ast.BoolOp))


def _texts(value: ast.expr, constants: dict[str, ast.Constant]) -> Iterator[str]:
    """Yield the texts that an expression can be, without those that only the provider knows."""
    match value:
        case ast.Constant(value=str(text)) if text and " " not in text:
            yield text
        case ast.Name(id=name) if name in constants:
            yield from _texts(constants[name], {})
        case ast.BoolOp(values=values):
            yield from _each(values, constants)
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)


def _each(values: Sequence[ast.expr], constants: dict[str, ast.Constant]) -> Iterator[str]:
    for value in values:
        yield from _texts(value, constants)
