"""`batch_job`: a task group that submits a job, waits for it and lands its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.definitions._internal.expandinput import ListOfDictsExpandInput, MappedArgument
from airflow.sdk.definitions.asset import BaseAsset
from airflow.sdk.definitions.decorators.task_group import _TaskGroupFactory
from airflow.sdk.definitions.taskgroup import MappedTaskGroup, TaskGroup
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from airflow_provider_batch.core.arguments import (
    argument_error,
    check_value,
    is_runtime_value,
    none_if_blank,
    parse_number,
    parse_text,
    require_conn_id,
)
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
from airflow_provider_batch.sensors.batch import BatchSensor
from airflow_provider_batch.sources.function import FunctionCall
from airflow_provider_batch.worker.argument_names import advise, parameter_names, register
from airflow_provider_batch.worker.mapped_names import check_name_template, closest_mapped_group, uses_mapped_value

__all__ = ["batch_job"]

#: tasks of the group, with the operator whose arguments each of them takes
_TASKS: Mapping[str, type[BaseOperator]] = {
    "submit": BatchSubmitOperator,
    "wait": BatchSensor,
    "land": BatchResultsOperator,
}

#: arguments of the group's own
_GROUP_ARGUMENTS = frozenset(
    {"results_conn_id", "outlets", "approve_above_usd", "approvers", "map_index_template", "notify", "trigger_rule"}
)
register("batch_job", _GROUP_ARGUMENTS)

#: arguments that can keep the rows of mapped jobs apart in a results table that they share
_DISTINGUISHING_ARGUMENTS = ("sql", "rows", "parameters", "custom_id", "results_conn_id", "table", "key")


class _LandingOutput(PlainXComArg):
    """The summary that `land` returns. When tasks are set upstream of it, it stands for the first task of the group.

    Airflow uses the value that a task group returns in place of the group. With a plain XComArg,
    `prepare >> batch_job(...)` would make only `land` wait for `prepare`, and `submit` would start too early.
    """

    @property
    def roots(self) -> list[Any]:
        """The first task of the group, which waits for upstream tasks."""
        group = self.operator.task_group
        return [] if group is None else list(group.get_roots())

    def set_upstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Start the group after these tasks."""
        for root in self.roots:
            root.set_upstream(task_or_task_list, edge_modifier)


class _JobGroupFactory(_TaskGroupFactory[Any, Any]):
    """A task group that `expand_kwargs` can map although its function takes any arguments."""

    def expand_kwargs(self, kwargs: Any) -> Any:
        """Create one job for each dict. Airflow refuses this, because the function does not name its parameters.

        :raises InputError: if the names are not known while the DAG is parsed, or not the same in all dicts.
        """
        self._task_group_created = True  # otherwise an error below would be followed by a warning
        expand_input = ListOfDictsExpandInput(kwargs)
        return self._create_task_group(
            partial(MappedTaskGroup, expand_input=expand_input),
            **self.partial_kwargs,
            **{
                name: MappedArgument(input=expand_input, key=name)
                for name in _common_names(kwargs, self.partial_kwargs)
            },
        )


def _common_names(dicts: Any, others: Mapping[str, Any]) -> list[str]:
    """Return the names that all dicts of `expand_kwargs` have. `others` are the arguments of `partial`."""
    if not isinstance(dicts, (list, tuple)) or not dicts or not all(isinstance(item, Mapping) for item in dicts):
        raise InputError(
            "batch_job.expand_kwargs: Expected a list of dicts in the DAG file. To map jobs over the output of a task, "
            "call batch_job in a @task_group whose parameters have names, and expand that group."
        )
    names = list(dicts[0])
    for item in dicts:
        if set(item) != set(names):
            raise InputError(
                f"batch_job.expand_kwargs: All dicts must have the same arguments, but one has {', '.join(item)}, and "
                f"the first has {', '.join(names)}. Give each dict all of them."
            )
    repeated_names = [name for name in names if name in others]
    if repeated_names:
        raise InputError(
            f"batch_job.expand_kwargs: {', '.join(repeated_names)} is given to partial as well. Remove one of them."
        )
    return names


def _batch_job(**arguments: Any) -> Any:
    """Send one request per row through the Batch API and land the answers: submit >> wait >> land.

    Takes the arguments of `BatchSubmitOperator`, `BatchSensor` and `BatchResultsOperator`, except those that every
    Airflow task has. `sql` is read from `warehouse_conn_id`, and answers land there too, unless `results_conn_id` is
    given. `outlets` are passed to the landing.

    With `approve_above_usd`, the group is submit >> approve >> wait >> land. Submit sends only the canary, and then a
    person approves the job under *Required Actions* if it may cost more than this amount in US dollars, or if its price
    is unknown. The request for approval shows the estimate that follows from the answers of the canary, two of these
    answers, and a link to the page of the job. After a rejection, or three days without a response, nothing else is
    sent, and wait and land are skipped. `approvers` are the users who may approve, as `assigned_users` of
    `ApprovalOperator`; by default everyone who may respond to required actions of the DAG.

    With `notify`, a notification is sent when the job has landed, when a budget withheld rows of it, and when one of
    its tasks failed. It takes a notifier of Airflow, such as `SmtpNotifier(to="me@example.com")`, or several; see
    `BatchJobNotifier`.

    Pass arguments that every Airflow task has to all three tasks with
    `batch_job.override(group_id="label", default_args={"retries": 2})(...)`. `trigger_rule` is that of submit.

    Returns the summary of the landing (see `BatchResultsOperator`), for use by downstream tasks. Tasks upstream of the
    returned value run before submit.

    `batch_job.partial(...).expand(model=[...])` creates one job per value, `.expand_kwargs([{...}, {...}])` one per
    dict, and so does a call in a task group that is expanded. Only template fields of the operators can be mapped.
    Airflow shows the mapped values as the names of the tasks, if they are short, or what `map_index_template` makes of
    them, such as `"{{ model }} for {{ market }}"`. The template fields can use the mapped values by name as well, as in
    `key={"market": "{{ market }}"}`.

    :raises InputError: while the DAG is parsed, if an argument is unknown or cannot be mapped, or if mapped jobs would
        overwrite each other's rows.
    """
    return create_job("batch_job", arguments)


batch_job = _JobGroupFactory(function=_batch_job, tg_kwargs={"group_id": "batch_job"})


def create_job(caller: str, arguments: Mapping[str, Any]) -> Any:
    """Add the tasks of a job to the current task group, and return the summary of its landing.

    :param caller: how errors name what the author called.
    :param arguments: as in `batch_job`. Raises the same errors.
    """
    _refuse_unknown(caller, arguments)
    _refuse_runtime_values(caller, arguments)
    _check_group_arguments(arguments)
    template = parse_text("map_index_template", arguments.get("map_index_template"))
    common = {} if template is None else {"map_index_template": template}
    task_arguments: dict[str, dict[str, Any]] = {
        task_id: common | {name: value for name, value in arguments.items() if name in _own_arguments(operator)}
        for task_id, operator in _TASKS.items()
    }
    results_conn_id = none_if_blank(arguments.get("results_conn_id"))
    if results_conn_id is not None:
        task_arguments["land"]["warehouse_conn_id"] = results_conn_id
    if "outlets" in arguments:
        task_arguments["land"]["outlets"] = arguments["outlets"]
    if "trigger_rule" in arguments:
        task_arguments["submit"]["trigger_rule"] = arguments["trigger_rule"]
    needs_approval = none_if_blank(arguments.get("approve_above_usd")) is not None
    if needs_approval:
        task_arguments["submit"].setdefault("stop_after_canary", True)
    submit = BatchSubmitOperator(task_id="submit", **task_arguments["submit"])
    wait = BatchSensor(task_id="wait", job=submit.output, **task_arguments["wait"])
    land = BatchResultsOperator(task_id="land", job=submit.output, **task_arguments["land"])
    check_name_template("map_index_template", land.map_index_template, land.task_group)
    if isinstance(land.key, Mapping):
        for column, value in land.key.items():
            if isinstance(value, str):
                check_name_template(f"key, column {column!r}", value, land.task_group)
    _refuse_overwriting(caller, land.task_group, arguments)
    submit >> wait >> land
    tasks: list[BaseOperator] = [submit, wait, land]
    if needs_approval:
        approve = _approve(submit, arguments)
        submit >> approve >> wait
        tasks.append(approve)
    if arguments.get("notify") is not None:
        _notify(arguments["notify"], tasks, land)
    return _LandingOutput(operator=land)


def _approve(submit: BatchSubmitOperator, arguments: Mapping[str, Any]) -> BaseOperator:
    # imported here, because it takes a while and most jobs need no approval
    from airflow_provider_batch.operators.approval import JobApprovalOperator

    approval: BaseOperator = JobApprovalOperator(
        task_id="approve",
        body=XComArg(submit, key="approval_text"),
        job=submit.output,
        above_usd=arguments["approve_above_usd"],
        assigned_users=arguments.get("approvers"),
        map_index_template=submit.map_index_template,
    )
    return approval


def _notify(notify: Any, tasks: Iterable[BaseOperator], land: BaseOperator) -> None:
    # imported here, because most jobs notify nobody
    from airflow_provider_batch.notifications import BatchJobNotifier

    for item in notify if isinstance(notify, (list, tuple)) else [notify]:
        notifier = item if isinstance(item, BatchJobNotifier) else BatchJobNotifier(item)
        for task in tasks:
            task.on_failure_callback = [*task.on_failure_callback, notifier]
        land.on_success_callback = [*land.on_success_callback, notifier]


def _own_arguments(operator: type) -> frozenset[str]:
    """Return the arguments of an operator, without those that every task has, and without `job`, which we pass."""
    return parameter_names(operator) - {"job"}


#: all arguments of a job
JOB_ARGUMENTS = _GROUP_ARGUMENTS.union(*(_own_arguments(operator) for operator in _TASKS.values()))


def _refuse_unknown(caller: str, arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name in JOB_ARGUMENTS:
            continue
        if name == "task_id":
            advice = "Its tasks are named submit, wait and land. Name the group with batch_job.override(group_id=…)."
        elif name in parameter_names(BaseOperator) - {"default_args", "task_group"}:
            advice = (
                f"Pass arguments that every Airflow task has with batch_job.override(default_args={{{name!r}: …}})."
            )
        elif name in parameter_names(TaskGroup):
            advice = f"Pass arguments that every task group has with batch_job.override({name}=…)."
        else:
            advice = advise(name, JOB_ARGUMENTS)
        raise InputError(f"{caller} has no argument {name!r}. {advice}")


def _check_group_arguments(arguments: Mapping[str, Any]) -> None:
    """Check the arguments that only the group has. Raises InputError naming the argument."""
    if none_if_blank(arguments.get("results_conn_id")) is not None:
        check_value("results_conn_id", arguments["results_conn_id"], require_conn_id)
    check_value("approve_above_usd", arguments.get("approve_above_usd"), parse_number)
    outlets = none_if_blank(arguments.get("outlets")) or []
    for outlet in outlets if isinstance(outlets, (list, tuple)) else [outlets]:
        if not isinstance(outlet, BaseAsset):
            raise argument_error("outlets", "assets, such as Asset('answers')", outlet)
    approvers = arguments.get("approvers")
    if none_if_blank(approvers) is None:
        return
    if none_if_blank(arguments.get("approve_above_usd")) is None:
        raise InputError("approvers: Nobody is asked to approve the job, because approve_above_usd is not set.")
    users = approvers if isinstance(approvers, (list, tuple, set, frozenset)) else [approvers]
    for user in users:
        if not isinstance(user, Mapping) or set(user) != {"id", "name"}:
            raise argument_error("approvers", "users such as {'id': '1', 'name': 'ada'}", user)


def _refuse_runtime_values(caller: str, arguments: Mapping[str, Any]) -> None:
    """Raise an error for a value that is resolved at run time, if its argument is not a template field.

    Airflow resolves template fields only. Any other argument would be used unresolved.
    """
    template_fields = {"results_conn_id", "approve_above_usd"}.union(
        *(operator.template_fields for operator in _TASKS.values())
    )
    for name, value in arguments.items():
        if name not in template_fields and name != "outlets" and is_runtime_value(value):
            raise InputError(
                f"{caller}: {name!r} must be known when the DAG is parsed, so it cannot be mapped or come from "
                "another task."
            )


def _refuse_overwriting(caller: str, group: TaskGroup | None, arguments: Mapping[str, Any]) -> None:
    """Raise an error if mapped jobs would land in the same file, or the same custom_ids in the same table."""
    if closest_mapped_group(group) is None:
        return

    rows = arguments.get("rows")
    # a call of a function is resolved at run time, but its rows differ only if its arguments do
    values = {**arguments, "rows": rows.arguments if isinstance(rows, FunctionCall) else rows}

    def differs(*names: str) -> bool:
        return any(uses_mapped_value(values.get(name), group) for name in names)

    if none_if_blank(arguments.get("results_file")) is not None and not differs("results_file"):
        raise InputError(
            f"{caller} is mapped, and each of its jobs would replace the file of the one before, because results_file "
            "is the same for all. Put '{{ ti.map_index }}' or the mapped value into its address."
        )
    if arguments.get("table") is None or arguments.get("history") or differs(*_DISTINGUISHING_ARGUMENTS):
        return
    raise InputError(
        f"{caller} is mapped, and all of its jobs would land the same custom_ids in the same table, so each job "
        "would overwrite the rows of the one before. Keep them apart with key={'variant': ...} set to the mapped "
        "value or to '{{ ti.map_index }}', or give each job its own table, or set history=True."
    )
