"""The list of jobs, from task instances and XComs alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from airflow_provider_batch.links.batch import LEDGER_KEY
from airflow_provider_batch.plugins.jobs.job_rows import make_job_rows
from airflow_provider_batch.plugins.jobs.listing import Criteria, list_jobs
from airflow_provider_batch.plugins.jobs.snapshot import expect_ends
from airflow_provider_batch.plugins.jobs.task_rows import TaskRow, read_task_rows
from tests.plugins.jobs.runs import RETURNED, address, landed, landed_run, submitted, waited
from tests.plugins.rows import NOON, Run, Task, add_runs

Get = Callable[..., Any]


@pytest.fixture
def dag_id(airflow_home: Any) -> str:
    return f"label_{uuid4().hex[:8]}"


def test_the_tasks_of_a_job_are_one_row(get: Get, dag_id: str) -> None:
    add_runs([landed_run(dag_id, "run")])
    (job,) = get(dag_id=dag_id)["jobs"]
    assert job == {
        "dag_id": dag_id,
        "run_id": "run",
        "task_id": "submit",
        "map_index": -1,
        "models": ["gpt-5-mini"],
        "rows": 100,
        "state": "landed",
        "state_text": "landed",
        "done": 97,
        "failed": 3,
        "waiting": 0,
        "started_at": "2026-11-20T12:00:00Z",
        "ended_at": "2026-11-20T13:00:00Z",
        "deadline": None,
        "expected_end": None,
        "cost_usd": 1.25,
        "estimate_low_usd": 1.0,
        "estimate_high_usd": 2.0,
        "standard_cost_usd": 2.5,
        "saved_usd": 1.25,
        "attempts": 2,
        "tasks": [
            {"task_id": "submit", "role": "submit", "state": "success", "map_index": -1},
            {"task_id": "wait", "role": "wait", "state": "success", "map_index": -1},
            {"task_id": "land", "role": "land", "state": "success", "map_index": -1},
        ],
    }


def test_a_job_that_runs_shows_only_what_its_tasks_have_returned(get: Get, dag_id: str) -> None:
    ledger = address(dag_id, "run")
    wait = Task("wait", "BatchSensor", "deferred", {LEDGER_KEY: ledger}, end=None)
    add_runs([Run(dag_id, "run", [Task("submit", xcoms=submitted(ledger)), wait])])
    (job,) = get(dag_id=dag_id)["jobs"]
    assert (job["state"], job["state_text"], job["rows"]) == ("waiting", "waiting for the answers", 100)
    assert [job[name] for name in ("done", "failed", "waiting", "cost_usd", "saved_usd", "ended_at")] == [None] * 6


def test_each_job_of_a_run_and_each_mapped_job_is_a_row_of_its_own(get: Get, dag_id: str) -> None:
    tasks = []
    for map_index in (0, 1):
        ledger = address(dag_id, "run", "submit", map_index)
        tasks += [
            Task("submit", xcoms=submitted(ledger), map_index=map_index),
            Task("wait", "BatchSensor", xcoms=waited(ledger, succeeded=100), map_index=map_index),
        ]
    other = address(dag_id, "run", "group.submit")
    tasks += [
        Task("group.submit", "_BatchSubmitDecorator", xcoms=submitted(other)),
        Task("group.land", "BatchResultsOperator", xcoms=landed(other, succeeded=100)),
    ]
    add_runs([Run(dag_id, "run", tasks), landed_run(dag_id, "another run")])
    jobs = get(dag_id=dag_id, run_id="run")["jobs"]
    assert {
        (job["task_id"], job["map_index"]): [(task["task_id"], task["map_index"]) for task in job["tasks"]]
        for job in jobs
    } == {
        ("submit", 0): [("submit", 0), ("wait", 0)],
        ("submit", 1): [("submit", 1), ("wait", 1)],
        ("group.submit", -1): [("group.submit", -1), ("group.land", -1)],
    }


def test_tasks_of_subclasses_are_recognized_by_what_they_return(get: Get, dag_id: str) -> None:
    ledger = address(dag_id, "run")
    land = Task("z_land", "OurLanding", xcoms=landed(ledger, succeeded=100))
    wait = Task("a_wait", "OurSensor", xcoms=waited(ledger, succeeded=100))
    add_runs([Run(dag_id, "run", [land, wait, Task("submit", "OurSubmit", xcoms=submitted(ledger))])])
    (job,) = get(dag_id=dag_id)["jobs"]
    assert [(task["task_id"], task["role"]) for task in job["tasks"]] == [
        ("submit", "submit"),
        ("a_wait", "wait"),
        ("z_land", "land"),
    ]


@pytest.mark.parametrize(
    ("approval", "wait", "state", "text"),
    [
        ("deferred", ..., "approval", "waiting for an approval"),
        ("success", ..., "sent", "sent; the wait has not started"),
        ("failed", ..., "failed", "the approve task failed"),
        ("success", "deferred", "waiting", "waiting for the answers"),
    ],
)
def test_a_job_may_wait_for_an_approval_before_the_wait(
    get: Get, dag_id: str, approval: str, wait: Any, state: str, text: str
) -> None:
    ledger = address(dag_id, "run")
    tasks = [
        Task("submit", xcoms=submitted(ledger)),
        Task("approve", "JobApprovalOperator", approval, {LEDGER_KEY: ledger}),
    ]
    if wait is not ...:
        tasks.append(Task("a_wait", "BatchSensor", wait, {LEDGER_KEY: ledger}))
    add_runs([Run(dag_id, "run", tasks)])
    (job,) = get(dag_id=dag_id)["jobs"]
    assert (job["state"], job["state_text"]) == (state, text)
    assert [task["role"] for task in job["tasks"]] == ["submit", "approve", "wait"][: len(tasks)]


@pytest.mark.parametrize(
    ("submit", "wait", "land", "state", "text"),
    [
        ("running", ..., ..., "sending", "sealing and sending the requests"),
        ("up_for_retry", ..., ..., "sending", "sealing and sending the requests"),
        ("failed", ..., ..., "failed", "the submit task failed"),
        ("success", ..., ..., "sent", "sent; the wait has not started"),
        ("success", "deferred", ..., "waiting", "waiting for the answers"),
        ("success", "failed", ..., "failed", "the wait task failed"),
        ("success", "failed", "upstream_failed", "failed", "the wait task failed"),
        ("success", "success", ..., "answered", "answered, not landed yet"),
        ("success", "success", "running", "landing", "landing the answers"),
        ("success", "success", "failed", "failed", "the land task failed"),
        ("success", "success", "success", "landed", "landed"),
        ("skipped", ..., ..., "skipped", "skipped"),
        # a person cleared the wait of a job that had landed
        ("success", None, "success", "waiting", "waiting for the answers"),
        ("success", "restarting", None, "waiting", "waiting for the answers"),
    ],
)
def test_the_state_follows_from_the_first_task_that_has_not_succeeded(
    submit: Any, wait: Any, land: Any, state: str, text: str
) -> None:
    operators = {"submit": "BatchSubmitOperator", "wait": "BatchSensor", "land": "BatchResultsOperator"}
    rows = [
        TaskRow(
            "dag", "run", task_id, -1, task_state, None, None, operators[task_id], f'"{address("dag", "run")}"', None
        )
        for task_id, task_state in (("submit", submit), ("wait", wait), ("land", land))
        if task_state is not ...
    ]
    (job,) = make_job_rows(rows)
    assert (job.state, job.state_text) == (state, text)


def test_a_submit_task_that_failed_before_the_seal_has_no_job(get: Get, dag_id: str) -> None:
    add_runs([Run(dag_id, "run", [Task("submit", state="failed"), Task("other", "EmptyOperator")])])
    assert get(dag_id=dag_id)["jobs"] == []


def test_an_address_that_belongs_to_no_task_of_the_run_is_not_listed(get: Get, dag_id: str) -> None:
    stranger = address("another_dag", "run")
    add_runs([Run(dag_id, "run", [Task("submit", xcoms=submitted(stranger)), Task("wait", xcoms=waited(stranger))])])
    assert get(dag_id=dag_id)["jobs"] == []


HOSTILE = [
    None,
    "abc",
    "\ud800",
    "nan",
    "1e999",
    float("nan"),
    float("inf"),
    -1,
    10**30,
    "9" * 5_000,
    [],
    {},
    {"succeeded": "abc"},
    {"succeeded": -1},
    {"\ud800": 1},
    ["\ud800"],
    "[" * 50_000,
    {"__classname__": "os.system", "__version__": 1, "__data__": "true"},
]
FIELDS = [
    ("submit", "requests"),
    ("submit", "models"),
    ("submit", "estimate"),
    ("wait", "outcomes"),
    ("wait", "retry_rounds"),
    ("land", "requests"),
    ("land", "outcomes"),
    ("land", "cost_usd"),
    ("land", "standard_cost_usd"),
]


def test_an_edited_xcom_makes_only_its_own_value_unknown(get: Get, dag_id: str) -> None:
    runs = []
    for number, value in enumerate(HOSTILE):
        for task_id, field in FIELDS:
            run = landed_run(dag_id, f"{number} {task_id} {field}")
            for task in run.tasks:
                if task.task_id == task_id:
                    task.xcoms[RETURNED][field] = value
            runs.append(run)
    add_runs(runs)
    for run in runs:
        (job,) = get(dag_id=dag_id, run_id=run.run_id)["jobs"]
        task_id, field = run.run_id.split()[1:]
        assert job["cost_usd"] == (1.25 if field != "cost_usd" else None), run.run_id
        assert job["attempts"] == (2 if field != "retry_rounds" else None), run.run_id
        if (task_id, field) != ("submit", "requests"):
            assert job["rows"] == 100
    get(dag_id=dag_id, sort="cost", text="\ud800".encode(errors="replace").decode())


@pytest.mark.parametrize("value", [value for value in HOSTILE if value is not None])
def test_an_edited_result_or_address_never_breaks_the_list(get: Get, dag_id: str, value: Any) -> None:
    ledger = address(dag_id, "run")
    tasks = [
        Task("submit", xcoms={LEDGER_KEY: ledger, RETURNED: value}),
        Task("wait", "BatchSensor", xcoms={LEDGER_KEY: ledger, RETURNED: value}),
        Task("land", "BatchResultsOperator", xcoms={LEDGER_KEY: value, RETURNED: value}),
        Task("own_class", "Ours", xcoms={LEDGER_KEY: ledger, RETURNED: value}),
    ]
    add_runs([Run(dag_id, "run", tasks)])
    (job,) = get(dag_id=dag_id)["jobs"]
    assert [task["task_id"] for task in job["tasks"]] == ["submit", "wait", "own_class"]
    assert (job["rows"], job["cost_usd"], job["models"]) == (None, None, [])


def test_values_that_were_edited_in_the_ui_are_read(get: Get, dag_id: str) -> None:
    # Airflow's UI stores the JSON text of a value
    ledger = address(dag_id, "run")
    xcoms = {LEDGER_KEY: f'"{ledger}"', RETURNED: '{"requests": "70", "models": ["m"], "estimate": {"low_usd": "0.5"}}'}
    add_runs([Run(dag_id, "run", [Task("submit", xcoms=xcoms)])])
    (job,) = get(dag_id=dag_id)["jobs"]
    assert (job["rows"], job["models"], job["estimate_low_usd"], job["estimate_high_usd"]) == (70, ["m"], 0.5, None)


def test_the_list_is_filtered_sorted_and_paged_and_sums_all_pages(get: Get, dag_id: str) -> None:
    runs = [landed_run(dag_id, f"run {age}", age=age, cost=cost, rows=rows) for age, cost, rows in [
        (1, "1.0", 100), (2, "3.0", 50), (3, None, 70), (4, "2.0", 10),
    ]]  # fmt: skip
    failed = Task("submit", state="failed", xcoms=submitted(address(dag_id, "bad"), 5, ("gpt-5",)), start=None)
    add_runs([*runs, Run(dag_id, "bad", [failed])])

    def runs_of(**params: Any) -> list[str]:
        return [job["run_id"] for job in get(dag_id=dag_id, **params)["jobs"]]

    assert runs_of() == ["run 1", "run 2", "run 3", "run 4", "bad"]
    assert runs_of(order="asc") == ["run 4", "run 3", "run 2", "run 1", "bad"]
    assert runs_of(sort="cost") == ["run 2", "run 4", "run 1", "run 3", "bad"]
    assert runs_of(sort="rows", order="asc") == ["bad", "run 4", "run 2", "run 3", "run 1"]
    assert runs_of(sort="state", order="asc") == ["bad", "run 1", "run 2", "run 3", "run 4"]
    assert runs_of(state="failed") == runs_of(model="gpt-5") == runs_of(text="BAD") == ["bad"]
    assert runs_of(since=(NOON - timedelta(hours=2)).isoformat()) == ["run 1", "run 2"]
    assert runs_of(since="2026-11-20T09:00:00", state="landed", limit=1, offset=1) == ["run 2"]
    listing = get(dag_id=dag_id, state="landed", limit=1)
    assert listing["total"] == 4
    assert listing["totals"] == {"jobs": 4, "rows": 230, "cost_usd": 6.0, "saved_usd": 1.5}
    assert dag_id in listing["dags"]
    assert {"gpt-5", "gpt-5-mini"} <= set(listing["models"])
    assert get(dag_id=dag_id, state="failed")["totals"]["cost_usd"] is None


@pytest.mark.parametrize(
    "params",
    [
        {"since": "yesterday"},
        {"sort": "1; DROP TABLE xcom"},
        {"order": "up"},
        {"offset": "-1"},
        {"offset": "9" * 30},
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "٣"},
    ],
)
def test_a_parameter_with_an_impossible_value_gets_a_sentence(
    airflow_api: Any, login: Callable[..., dict[str, str]], params: dict[str, str]
) -> None:
    answer = TestClient(airflow_api).get("/batch/api/jobs", params=params, headers=login("viewer"))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{next(iter(params))}: Give ")


@pytest.mark.parametrize("text", ["\0", "'", "%", "\u202e", "x" * 5_000, "[]", "~"])
def test_filters_take_any_text(get: Get, text: str) -> None:
    for name in ("state", "dag_id", "run_id", "model", "text"):
        assert isinstance(get(**{name: text})["jobs"], list)


def test_only_users_who_may_read_a_dag_see_its_jobs(
    airflow_api: Any, login: Callable[..., dict[str, str]], dag_id: str
) -> None:
    client = TestClient(airflow_api)
    assert client.get("/batch/api/jobs").status_code == 401
    assert client.get("/batch/api/jobs", headers=login(None)).status_code == 403
    add_runs([landed_run(dag_id, "run"), landed_run(f"{dag_id}_secret", "run")])
    listing = list_jobs(make_job_rows(read_task_rows()), {dag_id}, Criteria())
    assert [row.dag_id for row in listing.jobs] == listing.dags == [dag_id]
    assert listing.totals.jobs == 1


def test_the_oldest_runs_are_left_out_if_there_are_too_many(dag_id: str) -> None:
    add_runs([landed_run(dag_id, "older"), landed_run(dag_id, "newer"), landed_run(dag_id, "newest")])
    assert {row.run_id for row in read_task_rows(limit=8)} == {"newer", "newest"}


def test_a_job_is_expected_to_take_as_long_as_the_earlier_ones_of_its_task(dag_id: str) -> None:
    start, ledger = NOON + timedelta(minutes=30), address(dag_id, "run")
    running = [
        Task("submit", xcoms=submitted(ledger), start=start),
        Task("wait", "BatchSensor", "deferred", {LEDGER_KEY: ledger}, end=None),
    ]
    add_runs([*(landed_run(dag_id, f"run {age}", age=age) for age in range(3)), Run(dag_id, "run", running)])
    rows = [row for row in make_job_rows(read_task_rows()) if row.dag_id == dag_id]

    def expected_end(now: datetime) -> datetime | None:
        (row,) = [row for row in expect_ends(rows, now) if row.run_id == "run"]
        return row.expected_end

    assert expected_end(NOON) == datetime(2026, 11, 20, 13, 30, tzinfo=UTC)
    assert expected_end(NOON + timedelta(hours=2)) is None
