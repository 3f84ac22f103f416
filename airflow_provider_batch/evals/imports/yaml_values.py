"""The values of YAML files, within limits."""

from __future__ import annotations

import re
from typing import Any

import yaml

from airflow_provider_batch.evals.imports.reading import decode_text
from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED
from airflow_provider_batch.exceptions import InputError

#: maximum size of a YAML file, in bytes; its parser is slow
MAX_YAML_BYTES = 4 << 20
#: maximum number of values in a YAML file, with every alias replaced by what it stands for
MAX_YAML_VALUES = 500_000
#: maximum depth of a YAML file
MAX_YAML_DEPTH = 100

#: The words and numbers of YAML 1.2: tag, regular expression, and the characters that they begin with. PyYAML reads
#: YAML 1.1, where `yes` is true, 12:30 is 750 and 010 is eight.
_WORDS = (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", "~|null|Null|NULL|", ("~", "n", "N", "")),
    ("merge", "<<", "<"),
)


def read_yaml(data: bytes, place: str) -> Any:
    """Return the value of a YAML file. Anchors and aliases work, up to a limit.

    Words such as `yes` and `on`, times and dates are text, as in YAML 1.2 and in JavaScript's parsers.

    :raises InputError: if it is not one valid YAML document, a key appears twice in a mapping, or it is too large.
    """
    if len(data) > MAX_YAML_BYTES:
        raise InputError(
            f"{place} is larger than {MAX_YAML_BYTES >> 20} MB. Put the tests into a CSV or JSON lines file. "
            f"{NOTHING_IMPORTED}"
        )
    loader = _Loader(decode_text(data, place))
    try:
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{place} is empty. {NOTHING_IMPORTED}")
        _check_size(node, place)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{place} is not valid YAML: {problem}. {NOTHING_IMPORTED}") from None
    except (RecursionError, ValueError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{place} is not valid YAML: {problem}. {NOTHING_IMPORTED}") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader with the words of YAML 1.2. Its faster loader in C crashes if a file is nested deeply."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own declaration is the same


def _construct_integer(loader: Any, node: Any) -> int:
    # in YAML 1.2, unlike 1.1, 010 is ten
    text = loader.construct_scalar(node)
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


for _tag, _pattern, _first_characters in _WORDS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first_characters)
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)


def _check_size(root: Any, place: str) -> None:
    """Check the depth, the repeated keys, and the number of values with every alias replaced by what it stands for."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: Any, depth: int) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes or depth > MAX_YAML_DEPTH:
            problem = "contains itself" if id(node) in open_nodes else f"is nested more than {MAX_YAML_DEPTH} deep"
            raise InputError(f"{place}: A value in line {_line(node)} {problem}. {NOTHING_IMPORTED}")
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, yaml.SequenceNode):
            total += sum(size(item, depth + 1) for item in node.value)
        elif isinstance(node, yaml.MappingNode):
            _check_keys(node, place)
            total += sum(size(part, depth + 1) for pair in node.value for part in pair)
        open_nodes.discard(id(node))
        if total > MAX_YAML_VALUES:
            raise InputError(
                f"{place} has more than {MAX_YAML_VALUES:,} values, with its aliases replaced. {NOTHING_IMPORTED}"
            )
        sizes[id(node)] = total
        return total

    size(root, 0)


def _check_keys(node: Any, place: str) -> None:
    names: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{place}: A key in line {_line(key)} is not text. {NOTHING_IMPORTED}")
        if key.value in names and key.tag != "tag:yaml.org,2002:merge":
            raise InputError(f"{place}: The key {key.value!r} is repeated in line {_line(key)}. {NOTHING_IMPORTED}")
        names.add(key.value)


def _line(node: Any) -> str:
    return f"{node.start_mark.line + 1:,}"
