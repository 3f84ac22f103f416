"""Names of mapped tasks: what Airflow shows for the tasks of a mapped group instead of 0, 1, 2.

Airflow renders `map_index_template` with the context of a task, which has no mapped values. Only tasks that are mapped
themselves have them, as attributes. In a mapped group, every task of a job gets the same name only if the values are
put into the context.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.expandinput import DictOfListsExpandInput
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from airflow.sdk.definitions.taskgroup import MappedTaskGroup, TaskGroup
from jinja2 import Environment, TemplateSyntaxError
from jinja2.meta import find_undeclared_variables

from airflow_provider_batch.core.arguments import check_syntax, is_runtime_value
from airflow_provider_batch.exceptions import InputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

#: longest name that Airflow's database can hold
MAX_NAME = 250
#: longest value that makes a good name without the author's help
_MAX_VALUE = 40
#: name in the context of a task for its own name
_NAME_KEY = "mapped_name"


def mapped_name(context: Mapping[str, Any]) -> str:
    """Return the name of a mapped task, or its number if it has no name. Empty if the task is not mapped."""
    map_index = context["ti"].map_index
    if map_index is None or map_index < 0:
        return ""
    return context.get(_NAME_KEY) or str(map_index)


class NamedByMapping:
    """Names the tasks of an operator in a mapped group by the mapped values, such as DE, FR and US.

    With `map_index_template`, the template decides. Like the template fields of the operator, it can use the mapped
    values by name, as in `"{{ market }}"`.
    """

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render the template fields, and choose the name that Airflow shows."""
        values = self._mapped_values(context)
        for key, value in values.items():
            context.setdefault(key, value)
        task: BaseOperator = super()  # type: ignore[assignment]  # the operator comes after this class
        task.render_template_fields(context, jinja_env)
        # Airflow renders the template again when the task has succeeded. An error would then fail a task that has paid.
        context[_NAME_KEY] = name = self._mapped_name(context, values)
        context["map_index_template"] = f"{{{{ {_NAME_KEY} }}}}" if name else None

    def _mapped_values(self, context: Any) -> Mapping[str, Any]:
        """Return the values that the closest mapped group has in this task, by the names of their arguments."""
        task: Any = self
        group = closest_mapped_group(task.task_group)
        if group is None or context["ti"].map_index < 0:
            return {}
        values, _ = group._expand_input.resolve(context)
        return values

    def _mapped_name(self, context: Any, values: Mapping[str, Any]) -> str:
        """Return the name of the task, or an empty text to keep its number."""
        task: Any = self
        if task.map_index_template is None:
            return default_name(values.values())
        try:
            name: str = task.get_template_env().from_string(task.map_index_template).render(context)
        except Exception as error:  # noqa: BLE001  # a template can raise anything, and a name is not worth a failure
            task.log.warning("Cannot render map_index_template, so the task keeps its number: %s", error)
            return ""
        return name[:MAX_NAME]


def default_name(values: Iterable[Any]) -> str:
    """Return the values, separated by commas, or an empty text if one of them is too long or not a plain value."""
    # a dict that a group is mapped over gives pairs of a key and a value
    names = [value[0] if isinstance(value, tuple) and len(value) == 2 else value for value in values]
    texts = [str(name) for name in names if isinstance(name, (str, int, float, date))]
    is_short = all(0 < len(text) <= _MAX_VALUE and text.isprintable() for text in texts)
    return ", ".join(texts)[:MAX_NAME] if is_short and len(texts) == len(names) else ""


def closest_mapped_group(group: TaskGroup | None) -> MappedTaskGroup | None:
    """Return the innermost mapped group that a group is or belongs to."""
    while group is not None and not isinstance(group, MappedTaskGroup):
        group = group.parent_group
    return group


def check_name_template(name: str, template: str | None, group: TaskGroup | None) -> None:
    """Check a template that can use mapped values by name, such as `map_index_template`, while the DAG is parsed.

    :param name: how errors name the argument.
    :param group: the group of the tasks that get the template.
    :raises InputError: if it uses a name that it cannot have.
    """
    if template is None:
        return
    check_syntax(name, template)
    mapped_names = _mapped_arguments(closest_mapped_group(group))
    if mapped_names is None or "{%" in template:
        return
    environment = Environment(autoescape=True)
    unknown_names = (
        find_undeclared_variables(environment.parse(template)) - KNOWN_CONTEXT_KEYS - set(environment.globals)
    )
    if group is not None and group.dag is not None:
        unknown_names -= set(group.dag.user_defined_macros or ())
    for unknown_name in sorted(unknown_names.difference(mapped_names)):
        mapped = f"the mapped arguments {', '.join(mapped_names)}" if mapped_names else "no mapped arguments"
        raise InputError(
            f"{name}: The template uses {unknown_name!r}, but there are {mapped}. Use one of these, or a name that all "
            "Airflow templates have, such as params or ti."
        )


def uses_mapped_value(value: Any, group: TaskGroup | None) -> bool:
    """Return whether an argument, as its author wrote it, may differ between the tasks of a mapped group."""
    text = str(value)
    if is_runtime_value(value) or "map_index" in text:
        return True
    try:
        names = find_undeclared_variables(Environment(autoescape=True).parse(text)) - KNOWN_CONTEXT_KEYS
    except TemplateSyntaxError:
        return False
    mapped_names = _mapped_arguments(closest_mapped_group(group))
    return bool(names if mapped_names is None else names.intersection(mapped_names))


def _mapped_arguments(group: MappedTaskGroup | None) -> Collection[str] | None:
    """Return the names of the arguments that a group is mapped over. None if they are known only at run time."""
    if group is None:
        return []
    if isinstance(group._expand_input, DictOfListsExpandInput):
        return list(group._expand_input.value)
    value = group._expand_input.value
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return list(dict.fromkeys(key for item in value for key in item))
    return None
