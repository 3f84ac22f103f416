"""Removing what an answer has only because strict output requires it: null for an optional property.

A null is removed where the author's schema names an optional property that may not be null. In a union, the answer is
cleaned for each option in turn until it matches one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_batch.core.schema import strict

#: address of the whole schema, for the validators of its parts
ROOT_URI = "urn:author-schema"
#: returns a value without the nulls for absent properties; it shares what did not change
Cleaner = Callable[[Any], Any]
_Node = dict[str, Any]


def without_absent(root: _Node, create_validator: Callable[[Any], Any]) -> list[Cleaner]:
    """Return the cleaners for answers, to be tried in turn. Without an optional property that may not be null: none.

    With conditions, there are two. The first one cleans for the branch that applies, the second one for both branches,
    because an object that is sent also has the properties of the branch that does not apply.

    :param create_validator: returns a validator for a part of the schema, whose references begin with `ROOT_URI`.
    """
    nodes = list(_all_nodes(root))
    if not any(_optional_names(root, node) for node in nodes):
        return []
    choices = (True, False) if any("if" in node for node in nodes) else (False,)
    return [_Compiler(root, create_validator, by_condition=choice).compile(root) for choice in choices]


def _all_nodes(node: Any) -> Iterator[_Node]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _all_nodes(value)
    elif isinstance(node, list):
        for item in node:
            yield from _all_nodes(item)


def _optional_names(root: _Node, node: _Node) -> list[str]:
    properties, required = node.get("properties"), node.get("required", ())
    if not isinstance(properties, dict) or not isinstance(required, list | tuple):
        return []
    return [
        name for name, schema in properties.items() if name not in required and not strict.allows_null(root, schema)
    ]


class _Compiler:
    """Compiles schemas into cleaners. A reference is compiled once, when a value first needs it."""

    def __init__(self, root: _Node, create_validator: Callable[[Any], Any], *, by_condition: bool) -> None:
        self._root, self._create_validator, self._by_condition = root, create_validator, by_condition
        self._by_ref: dict[str, Cleaner] = {}

    def compile(self, node: Any) -> Cleaner:
        if not isinstance(node, dict):
            return _keep
        cleaners = [self._compile_own(node)]
        if isinstance(node.get("$ref"), str):
            cleaners.append(self._compile_ref(node["$ref"]))
        cleaners += [self.compile(part) for part in node.get("allOf", ())]
        for keyword in ("anyOf", "oneOf"):
            if isinstance(node.get(keyword), list):
                cleaners.append(self._compile_union(node[keyword]))
        branches = [self.compile(node.get("then")), self.compile(node.get("else"))]
        if self._by_condition and "if" in node:
            cleaners.append(self._compile_condition(node["if"], *branches))
        else:
            cleaners += branches
        cleaners = [cleaner for cleaner in cleaners if cleaner is not _keep]
        if len(cleaners) < 2:
            return cleaners[0] if cleaners else _keep

        def clean(value: Any) -> Any:
            for cleaner in cleaners:
                value = cleaner(value)
            return value

        return clean

    def _compile_ref(self, ref: str) -> Cleaner:
        def clean(value: Any) -> Any:
            if ref not in self._by_ref:
                self._by_ref[ref] = _keep
                self._by_ref[ref] = self.compile(strict.follow(self._root, ref))
            return self._by_ref[ref](value)

        return clean

    def _compile_condition(self, condition: Any, then: Cleaner, otherwise: Cleaner) -> Cleaner:
        if then is _keep and otherwise is _keep:
            return _keep
        validator = self._create_validator(_with_absolute_refs(condition))

        def clean(value: Any) -> Any:
            return then(value) if validator.is_valid(value) else otherwise(value)

        return clean

    def _compile_union(self, options: list[Any]) -> Cleaner:
        cleaners = [self.compile(option) for option in options]
        if all(cleaner is _keep for cleaner in cleaners):
            return _keep
        validators = [self._create_validator(_with_absolute_refs(option)) for option in options]

        def clean(value: Any) -> Any:
            if not isinstance(value, dict | list):
                return value
            for cleaner, validator in zip(cleaners, validators, strict=True):
                cleaned = cleaner(value)
                if validator.is_valid(cleaned):
                    return cleaned
            return value

        return clean

    def _compile_own(self, node: _Node) -> Cleaner:
        optional = frozenset(_optional_names(self._root, node))
        properties = {
            name: cleaner
            for name, schema in (node.get("properties") or {}).items()
            if (cleaner := self.compile(schema)) is not _keep
        }
        items, prefix = self.compile(node.get("items")), [self.compile(item) for item in node.get("prefixItems", ())]
        has_items = items is not _keep or any(cleaner is not _keep for cleaner in prefix)
        if not (optional or properties or has_items):
            return _keep

        def clean(value: Any) -> Any:
            if isinstance(value, dict):
                return {
                    name: properties[name](item) if name in properties else item
                    for name, item in value.items()
                    if item is not None or name not in optional
                }
            if isinstance(value, list) and has_items:
                start = len(prefix)
                return [
                    *(cleaner(item) for cleaner, item in zip(prefix, value, strict=False)),
                    *map(items, value[start:]),
                ]
            return value

        return clean


def _with_absolute_refs(node: Any) -> Any:
    """Return a part of the schema whose references lead into the whole one."""
    if isinstance(node, list):
        return [_with_absolute_refs(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {key: _with_absolute_refs(value) for key, value in node.items()}
    if isinstance(result.get("$ref"), str) and result["$ref"].startswith("#"):
        result["$ref"] = ROOT_URI + result["$ref"]
    return result


def _keep(value: Any) -> Any:
    return value
