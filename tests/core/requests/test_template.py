"""One template: what it may say, what it gives, and that its fast path means the same as Jinja."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.row import Columns
from airflow_provider_batch.core.requests.template import RowTemplate, is_template
from airflow_provider_batch.core.requests.value import UnusableError
from airflow_provider_batch.exceptions import TemplateError


def render(source: str, *, as_text: bool = False, context: dict[str, Any] | None = None, **row: Any) -> Any:
    leaf = RowTemplate("prompt", source).bind(Columns(list(row)), context or {}, as_text=as_text)
    return leaf.value(tuple(row.values()))


def refusal(source: str, *, context: dict[str, dict[str, Any] | str] | None = None, **row: Any) -> str:
    with pytest.raises(TemplateError) as caught:
        render(source, context=context, **row)
    return str(caught.value)


# --- values ---


@pytest.mark.parametrize(
    "value",
    [5, 1.5, True, None, "1e5", '{"a": 1}', [1, {"a": 2}], {"a": 1}, Decimal("1.10"), date(2026, 1, 2), UUID(int=1)],
)
@pytest.mark.parametrize("source", ["{{ row.x }}", " {{ row.x }}\n", "{{- row['x'] -}}", "{{ row.x | default(1) }}"])
def test_a_lone_expression_keeps_the_type_of_its_value(source: str, value: Any) -> None:
    given = render(source, x=value)
    assert given == value
    assert type(given) is type(value)


def test_a_lone_expression_is_text_where_text_is_wanted() -> None:
    assert render(" {{ row.x }}\n", as_text=True, x=5) == "5"
    assert render("{{ row.x }}", as_text=True, x=None) == ""
    assert render("{{ row.x + 1 }}", as_text=True, x=5) == "6"
    assert render("{{ row.x }}", as_text=True, x={"b": 1, "a": 2}) == '{"b":1,"a":2}'


@pytest.mark.parametrize("source", ["<{{ row.x }}>", "<{% if true %}{{ row.x }}{% endif %}>", "<{{ '' ~ row.x }}>"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "<>"), (5, "<5>"), ({"b": [None], "a": "é"}, '<{"b":[null],"a":"é"}>'), (True, "<True>"), ("a", "<a>")],
)
def test_mixed_text_writes_every_value_in_the_same_way(
    source: str, value: int | str | dict[str, list[None] | str] | None, expected: str
) -> None:
    assert render(source, x=value) == expected


@pytest.mark.parametrize("name", ["trim", "upper", "truncate(9)", "replace('a', 'b')", "string", "indent", "title"])
def test_a_null_does_not_become_the_word_none_in_a_text_filter(name: str) -> None:
    assert render("<{{ row.x | " + name + " }}>", x=None) == "<>"


@pytest.mark.parametrize("data", ["{{ 7 * 7 }}", "{% raw %}", "{# x #}", "1e5", "[1]", "null", "{{ row.x }}", "<b>&"])
@pytest.mark.parametrize(
    "source", ["{{ row.x }}", "{{ row.x }}.", "{{ row.x | trim }}", "{% if 1 %}{{ row.x }}{% endif %}"]
)
def test_data_is_never_evaluated_or_escaped(source: str, data: str) -> None:
    assert render(source, x=data).removesuffix(".") == data


def test_a_line_end_at_the_end_of_a_template_is_kept() -> None:
    assert render("Title: {{ row.x }}\n", x="a") == "Title: a\n"
    assert render("{% if 1 %}{{ row.x }}{% endif %}\n", x="a") == "a\n"


def test_braces_can_be_written() -> None:
    assert render("{% raw %}{{ row.nothing }}{% endraw %} {{ row.x }}", x=1) == "{{ row.nothing }} 1"


# --- filters ---


def test_tojson_is_json_for_a_model_and_not_for_a_web_page() -> None:
    assert render("{{ row.x | tojson }}", x={"b": "<é'&>", "a": Decimal("1.10")}) == '{"b":"<é\'&>","a":1.10}'
    assert render("{{ row.x | tojson(indent=2) }}", x=[1]) == "[\n  1\n]"
    assert render("{{ row | tojson }}", id=1, day=date(2026, 1, 2)) == '{"id":1,"day":"2026-01-02"}'


def test_fromjson_reads_json_that_the_warehouse_hands_out_as_text() -> None:
    assert render("{{ row.x | fromjson }}", x='{"a": [1]}') == {"a": [1]}
    assert render("{{ (row.x | fromjson).a[0] }}", x='{"a": [1]}') == 1


def test_what_would_differ_from_run_to_run_is_not_there() -> None:
    assert "no filter 'random'" in refusal("{{ [1, 2] | random }}")
    assert "'lipsum' is unknown" in refusal("{{ lipsum() }}")


# --- columns ---


@pytest.mark.parametrize(
    "name", ["items", "keys", "values", "get", "copy", "index", "count", "_values", "format", "_id"]
)
def test_columns_named_like_methods_are_columns(name: str) -> None:
    assert render("{{ row." + name + " }}", **cast("dict[str, Any]", {name: "data"})) == "data"
    assert render("{{ row['" + name + "'] }}", **cast("dict[str, Any]", {name: "data"})) == "data"
    assert render("{% if 1 %}{{ row." + name + " }}{% endif %}", **cast("dict[str, Any]", {name: "data"})) == "data"


@pytest.mark.parametrize("name", ["items", "keys", "get", "_columns", "__class__", "__init__", "__dict__", "mro"])
@pytest.mark.parametrize("source", ["{{{{ row.{} }}}}", "{{{{ row['{}'] }}}}", "{{% if row.{}() %}}{{% endif %}}"])
def test_what_is_no_column_is_not_there(source: str, name: str) -> None:
    assert f"no column {name!r}" in refusal(source.format(name), id=1)


def test_any_column_name_can_be_written() -> None:
    assert render("{{ row['Any Column, \"quoted\"'] }}", **cast("dict[str, Any]", {'Any Column, "quoted"': 5})) == 5


def test_a_missing_column_is_found_without_rows_even_where_it_would_not_be_reached() -> None:
    columns = Columns(["id", "title"])
    with pytest.raises(TemplateError) as caught:
        RowTemplate("system", "a\n{% if false %}{{ row.titel | upper }}{% endif %}").bind(columns, {}, as_text=True)
    assert "system, line 2" in str(caught.value)
    assert "no column 'titel'" in str(caught.value)
    assert "Did you mean 'title'?" in str(caught.value)


def test_a_column_may_be_chosen_by_another() -> None:
    assert render("{{ row[row.which] }}", which="b", b=5) == 5


def test_a_missing_column_that_is_chosen_by_another_is_an_error_in_its_row() -> None:
    for source in ("{{ row[row.which] }}", "{{ row[row.which] | default('x') }}", "<{{ row[row.which] }}>"):
        with pytest.raises(LookupError, match="no column 'c'"):
            render(source, which="c")


def test_the_columns_that_a_template_names_are_known() -> None:
    leaf = RowTemplate("prompt", "{{ row.B }}{{ row['a'] | trim }}{{ row.b }}").bind(
        Columns(["a", "b"]), {}, as_text=True
    )
    assert set(leaf.columns) == {"a", "b"}


@pytest.mark.parametrize(
    "source", ["{{ row.x }}", "{{ row.x }}.", "{{ row.x | string }}", "{{ 'a' ~ row.x }}", "{{ '%s' | format(row.x) }}"]
)
def test_bytes_are_refused_before_any_filter(source: str) -> None:
    with pytest.raises(UnusableError, match="binary"):
        render(source, as_text=True, x=b"\x00")


# --- names ---


def test_only_row_and_the_context_are_known() -> None:
    message = refusal("{{ ti.conn }}", context={"params": {}, "run_id": "r"}, id=1)
    assert "the name 'ti' is unknown" in message
    assert "row, params, run_id" in message


def test_the_context_is_there() -> None:
    context = {
        "params": {"tone": "kind"},
        "dag_run": {"conf": {"n": 3}},
        "logical_date": datetime(2026, 1, 2, tzinfo=UTC),
    }
    assert render("{{ params.tone }} {{ dag_run.conf.n }} {{ logical_date.year }}", context=context) == "kind 3 2026"
    assert render("{{ dag_run.conf.n }}", context=context) == 3


def test_a_name_that_the_template_asks_about_may_be_missing() -> None:
    assert render("{% if ds is defined %}{{ ds }}{% else %}by hand{% endif %}") == "by hand"
    assert render("{{ ds | default('by hand') }}") == "by hand"
    assert render("{% if ds is defined %}{{ ds }}{% endif %}", context={"ds": "2026-01-02"}) == "2026-01-02"


@pytest.mark.parametrize("source", ["{{ params.missing }}", "{{ params.missing }}.", "{{ params.missing | tojson }}"])
def test_what_the_context_does_not_hold_is_an_error(source: str) -> None:
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        render(source, context={"params": {}})


def test_variables_of_the_template_itself_are_no_unknown_names() -> None:
    assert render("{% set n = row.x %}{% for i in range(n) %}{{ loop.index }}{% endfor %}", x=3) == "123"


# --- the sandbox ---


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ row.x.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ range.__globals__ }}",
        "{{ '{0.__class__}'.format(row.x) }}",
        "{{ row | attr('__class__') }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_python_is_out_of_reach(source: str) -> None:
    with pytest.raises((jinja2.exceptions.SecurityError, jinja2.UndefinedError, LookupError)):
        render(source, as_text=True, x="data")


def test_values_cannot_be_changed_by_a_template() -> None:
    with pytest.raises(jinja2.exceptions.SecurityError):
        render("{{ row.x.append(1) }}", x=[])
    with pytest.raises(jinja2.exceptions.SecurityError):
        render("{{ params.update({'a': 1}) }}", context={"params": {}})


@pytest.mark.parametrize("source", ["{% include 'x' %}", "{% import 'x' as x %}", "{% extends 'x' %}"])
def test_a_template_stands_alone(source: str) -> None:
    assert "cannot include" in refusal(source)


def test_row_cannot_be_replaced() -> None:
    assert "`row` is taken" in refusal("{% set row = 1 %}{{ row }}")
    assert "`row` is taken" in refusal("{% for row in [1] %}{{ row }}{% endfor %}")


# --- syntax ---


@pytest.mark.parametrize(
    "source", ["a\n{{ row.x", "a\n{{ row.x | nothing }}", "a\n{% if %}", "a\n{{ 1 is nothing }}", "\n{{ }}"]
)
def test_a_slip_is_found_before_there_are_columns_and_says_where(source: str) -> None:
    with pytest.raises(TemplateError, match=r"^body\.a, line 2: "):
        RowTemplate("body.a", source)


def test_a_filter_that_is_not_there_is_found_where_it_would_not_be_reached() -> None:
    with pytest.raises(TemplateError, match="no filter 'nothing'"):
        RowTemplate("prompt", "{% if false %}{{ 1 | nothing }}{% endif %}")


def test_a_slip_tells_how_braces_are_written() -> None:
    with pytest.raises(TemplateError, match=r"\{% raw %\}"):
        RowTemplate("prompt", 'Answer as {{"label": 1}')


def test_text_without_marks_is_no_template() -> None:
    assert not is_template('{"a": {"b": 1}} # 100%')
    assert is_template("{{ a }}")
    assert is_template("{% raw %}{% endraw %}")
    assert is_template("{# nothing #}")


# --- laws ---

COLUMNS = ["id", "Title", "any column", "items"]
LITERALS = st.text(st.characters(exclude_characters="{}#%\r", exclude_categories=["Cs"]), max_size=12)
REFERENCES = st.sampled_from(
    ["{{ row.id }}", "{{row.title}}", "{{ row['any column'] }}", '{{ row["items"] }}', "{{- row.Title -}}"]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.text(),
    st.sampled_from(["{{ row.id }}", "{% for %}", "1e5", "{#", "\r\n", "<&>"]),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    st.lists(st.integers() | st.none(), max_size=3),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), st.booleans(), max_size=3),
)


@given(st.lists(LITERALS | REFERENCES, max_size=8).map("".join), REFERENCES, st.tuples(*[VALUES] * 4))
def test_the_fast_path_means_the_same_as_jinja(rest: str, reference: str, row: tuple[Any, Any, Any, Any]) -> None:
    columns = Columns(COLUMNS)
    source = f"Text {reference}{rest}"
    fast = RowTemplate("prompt", source).bind(columns, {}, as_text=True)
    # A `set` without effect sends the whole template through Jinja.
    slow = RowTemplate("prompt", source + "{% set nothing = 1 %}").bind(columns, {}, as_text=True)
    assert fast.value(row) == slow.value(row)


@given(
    st.sampled_from(
        [
            ("{{ row.id }}", "{{ row.id if true }}"),
            (" {{ row['any column'] }}\n", " {{ row['any column'] if true }}\n"),
            ("{{- row.items -}}", "{{- row.items if true -}}"),
        ]
    ),
    st.tuples(*[VALUES] * 4),
)
def test_the_fast_path_of_a_lone_column_gives_the_very_same_value_as_jinja(
    sources: tuple[str, str], row: tuple[Any, Any, Any, Any]
) -> None:
    fast, slow = (RowTemplate("body", source).bind(Columns(COLUMNS), {}, as_text=False) for source in sources)
    assert fast.value(row) is slow.value(row)
    fast, slow = (RowTemplate("body", source).bind(Columns(COLUMNS), {}, as_text=True) for source in sources)
    assert fast.value(row) == slow.value(row)


@given(
    st.text(),
    st.sampled_from(["{{ row.x }}", "{{ row.x | trim }}", "a {{ row.x }} b", "{% if 1 %}{{ row.x }}{% endif %}"]),
)
def test_whatever_the_data_says_it_is_only_data(data: str, source: str) -> None:
    expected = {"{{ row.x | trim }}": data.strip(), "a {{ row.x }} b": f"a {data} b"}.get(source, data)
    assert render(source, x=data) == expected
