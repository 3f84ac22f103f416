"""The templates of promptfoo, as far as an import evaluates them: `{{ name }}` and `{{ name.part }}`.

promptfoo renders prompts and expected values with Nunjucks. Statements, filters and expressions are not evaluated here:
a test that uses them is left out, because a slightly different prompt would be worse than none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from airflow_provider_batch.evals.imports.messages import NotImportableError
from airflow_provider_batch.evals.imports.values import text_of

#: maximum length of a rendered text, in characters
MAX_TEXT = 2_000_000
#: how deep variables may refer to each other, as in promptfoo
_MAX_DEPTH = 5

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.\w+)*)\s*\}\}")
_OTHER_SYNTAX = re.compile(r"\{\{|\{%|\{#")


def render(template: str, values: Mapping[str, Any], subject: str) -> str:
    """Return the template with every placeholder replaced. Values are data: what is in them is not evaluated.

    :param subject: the text that is rendered, for messages, such as "the prompt".
    :raises NotImportableError: if a placeholder has no value, or the template has anything but placeholders.
    """
    remainder = _PLACEHOLDER.sub("", template)
    other = _OTHER_SYNTAX.search(remainder)
    if other:
        excerpt = remainder[other.start() : other.start() + 40].splitlines()[0]
        raise NotImportableError(
            f"{subject} has a template expression that an import does not evaluate: {excerpt!r}. Only placeholders "
            "such as {{ name }} are"
        )
    return _substitute(template, lambda match: _value(match[1], values, subject), subject)


def resolve_variables(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return variables with the other variables in their texts replaced. A name without a value is plain text.

    :raises NotImportableError: if a text has a template expression that an import does not evaluate.
    """
    resolved = dict(values)
    for _ in range(_MAX_DEPTH):
        previous = dict(resolved)
        for name, value in previous.items():
            if isinstance(value, str):
                replace = partial(_replace_known, previous, name)
                resolved[name] = _substitute(value, replace, f"the variable {name!r}")
        if resolved == previous:
            break
    for name, value in resolved.items():
        if isinstance(value, str) and _OTHER_SYNTAX.search(_PLACEHOLDER.sub("", value)):
            raise NotImportableError(
                f"the variable {name!r} has a template expression that an import does not evaluate"
            )
    return resolved


def _substitute(template: str, replace: Callable[[re.Match[str]], str], subject: str) -> str:
    """Return the template with its placeholders replaced, but not a text that would fill the memory."""
    parts: list[str] = []
    length = position = 0
    for match in _PLACEHOLDER.finditer(template):
        parts += [template[position : match.start()], replace(match)]
        position = match.end()
        length += len(parts[-1]) + len(parts[-2])
        if length > MAX_TEXT:
            raise NotImportableError(f"{subject} is longer than {MAX_TEXT:,} characters with its variables replaced")
    return "".join([*parts, template[position:]])


def _replace_known(values: Mapping[str, Any], own_name: str, match: re.Match[str]) -> str:
    root = match[1].partition(".")[0]
    if root == own_name or root not in values:
        return match[0]
    return _value(match[1], values, f"the variable {own_name!r}")


def render_json(value: Any, values: Mapping[str, Any], subject: str) -> Any:
    """Return a JSON value with every text in it rendered."""
    if isinstance(value, str):
        return render(value, values, subject)
    if isinstance(value, list):
        return [render_json(item, values, subject) for item in value]
    if isinstance(value, Mapping):
        return {name: render_json(item, values, subject) for name, item in value.items()}
    return value


def parse_json(text: str) -> Any:
    """Return the list or object in a text, or None if the text is not JSON of this kind."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, (list, dict)) else None


def _value(path: str, values: Mapping[str, Any], subject: str) -> str:
    value: Any = values
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise NotImportableError(f"{subject} uses {{{{ {path} }}}}, for which the test has no value")
        value = value[name]
    if isinstance(value, (list, Mapping)):
        raise NotImportableError(f"{subject} uses {{{{ {path} }}}}, which is a list or an object and has no fixed text")
    return text_of(value) or ""
