"""Checks that the requests of a job depend on its rows.

A template without its braces is plain text, and every row would send the same request. The job would succeed, and one
answer would land for all rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.core.requests.body_form import replace_nodes
from airflow_provider_batch.core.requests.check import Arguments
from airflow_provider_batch.core.requests.spec import CONTEXT_NAMES
from airflow_provider_batch.core.requests.template import RowTemplate
from airflow_provider_batch.exceptions import CustomIdError, TemplateError

#: a column, or a value of the run, as it is written by mistake, in whole: row.body, row['body'], {row.body}, $row.body
_COLUMN = re.compile(r"""[{$%(\s]*row\s*(?:\.\s*(\w+)|\[\s*["']?([^"'\]]+)["']?\s*\])[)}s\s]*""")
#: likewise for a value of the run: params.model, {params.model}, {{params.model}
_PARAMS = re.compile(r"[{$%(\s]*(params\.\w+)[)}s\s]*")
#: a placeholder of another template language, in whole: {body}, ${body}, $body, %(body)s
_PLACEHOLDER = re.compile(r"\s*(?:\$?\{\s*(\w+)\s*\}|\$(\w+)|%\((\w+)\)s)\s*")
#: the same somewhere in a text
_COLUMN_IN_TEXT = re.compile(r"""(?<!\{)\{\s*row\s*(?:\.\s*(\w+)|\[\s*["']([^"'\]]+)["']\s*\])\s*\}(?!\})""")
_PLACEHOLDER_IN_TEXT = re.compile(r"\$?\{+\s*(?:row\.)?(\w+)\s*\}|\$(\w+)|%\((\w+)\)s|\brow\.(\w+)")
#: a placeholder in a text that may name a column, but not what follows a word or braces, as in LaTeX
_COLUMN_PLACEHOLDER = re.compile(r"(?<![\w{}\\$])\$?\{([^\W\d]\w*)\}(?!\})|%\(([^\W\d]\w*)\)s")


def check_row_use(arguments: Arguments, *, deduplicate: bool) -> None:
    """Raise InputError, naming the argument, if the author probably forgot the braces of a template.

    :param deduplicate: whether a request that is the same for every row would be sent only once. Without it, the same
        prompt may be sent for every row on purpose.
    """
    request_trees = {
        "model": arguments.model,
        "system": arguments.system,
        "prompt": arguments.prompt,
        "files": [file.path for file in arguments.files],
        "body": arguments.body,
    }
    for name, tree in {"custom_id": arguments.custom_id, **request_trees}.items():
        for template in _nodes(tree, RowTemplate):
            template.check_names(CONTEXT_NAMES)
            _check_text(name, template.literals, [_COLUMN_IN_TEXT.search])
        _check_text(name, _nodes(tree, str), [_COLUMN.fullmatch, _COLUMN_IN_TEXT.search])
        if isinstance(tree, str):
            _check_text(name, [tree], [_PLACEHOLDER.fullmatch])
    _check_text("model", [arguments.model] if isinstance(arguments.model, str) else [], [_PARAMS.fullmatch])
    if isinstance(arguments.custom_id, RowTemplate) and not arguments.custom_id.uses_row:
        raise CustomIdError(
            f"custom_id: {shorten(arguments.spec.custom_id)} is the same for every row, because it does not mention "
            "the row, but every row needs its own id. Name the column that identifies a row, such as '{{ row.id }}'."
        )
    if isinstance(arguments.custom_id, str):
        column = re.fullmatch(r"\W*(\w{1,63})\W*", arguments.custom_id)
        raise CustomIdError(
            f"custom_id: {shorten(arguments.custom_id)} is the same for every row, but every row needs its own id. "
            f"Did you mean {_template(column) if column else '{{ row.id }}'!r}?"
        )
    templates = [template for tree in request_trees.values() for template in _nodes(tree, RowTemplate)]
    if deduplicate and arguments.spec.request is None and not any(template.uses_row for template in templates):
        name = f"body.{arguments.endpoint.input_key}" if arguments.prompt is None else "prompt"
        matches = [match for text in _nodes(arguments.prompt, str) if (match := _PLACEHOLDER_IN_TEXT.search(text))]
        raise TemplateError(
            f"{name}: Every row would send the same request, because no template mentions the row. Write columns "
            f"between double braces, for example {_template(matches[0]) if matches else '{{ row.body }}'!r}. To send "
            "the same request for every row on purpose, for example to sample answers, set deduplicate=False."
        )


def check_placeholders(arguments: Arguments, columns: Collection[str]) -> None:
    """Raise TemplateError for a placeholder of another template language that names a column, such as `{body}`.

    :param columns: the columns of the query. Other words in braces may be part of the text.
    """
    for name, tree in {"system": arguments.system, "prompt": arguments.prompt, "body": arguments.body}.items():
        literals = [text for template in _nodes(tree, RowTemplate) for text in template.literals]
        for text in [*_nodes(tree, str), *literals]:
            for match in _COLUMN_PLACEHOLDER.finditer(text):
                if next(filter(None, match.groups())) in columns:
                    _check_text(name, [match.group()], [_COLUMN_PLACEHOLDER.fullmatch])


def _check_text(name: str, texts: Iterable[str], searches: Iterable[Callable[[str], re.Match[str] | None]]) -> None:
    for text in texts:
        for search in searches:
            match = search(text)
            if match is not None:
                written = shorten(match.group().strip())
                raise TemplateError(
                    f"{name}: {written} is plain text, not a template, so it would be sent as it stands. Did you "
                    f"mean {_template(match)!r}? If the text is meant, write {{{{ {written} }}}}."
                )


def _nodes(tree: Any, kind: type[Any]) -> list[Any]:
    """Return the nodes of a type in a tree, in order."""
    nodes: list[Any] = []
    replace_nodes(tree, kind, nodes.append)
    return nodes


def _template(match: re.Match[str]) -> str:
    """Return the template for the column that a match names."""
    column = next(group for group in match.groups() if group is not None).strip()
    if column.startswith("params."):
        return f"{{{{ {column} }}}}"
    return f"{{{{ row.{column} }}}}" if column.isidentifier() else f"{{{{ row[{column!r}] }}}}"
