"""Row templates: their syntax, their values, and the equivalence of the fast paths and Jinja."""

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
from airflow_provider_batch.core.requests.value import UnusableValueError
from airflow_provider_batch.exceptions import TemplateError


def render(source: str, *, as_text: bool = False, context: dict[str, Any] | None = None, **row: Any) -> Any:
    leaf = RowTemplate("prompt", source).bind(Columns(list(row)), context or {}, as_text=as_text)
    return leaf.value(tuple(row.values()))


def error_message(source: str, *, context: dict[str, dict[str, Any] | str] | None = None, **row: Any) -> str:
    with pytest.raises(TemplateError) as error_info:
        render(source, context=context, **row)
    return str(error_info.value)


# --- values ---


@pytest.mark.parametrize(
    "value",
    [5, 1.5, True, None, "1e5", '{"a": 1}', [1, {"a": 2}], {"a": 1}, Decimal("1.10"), date(2026, 1, 2), UUID(int=1)],
)
@pytest.mark.parametrize("source", ["{{ row.x }}", " {{ row.x }}\n", "{{- row['x'] -}}", "{{ row.x | default(1) }}"])
def test_a_single_expression_keeps_the_type_of_its_value(source: str, value: Any) -> None:
    result = render(source, x=value)
    assert result == value
    assert type(result) is type(value)


def test_a_single_expression_renders_to_text_if_text_is_required() -> None:
    assert render(" {{ row.x }}\n", as_text=True, x=5) == "5"
    assert render("{{ row.x }}", as_text=True, x=None) == ""
    assert render("{{ row.x + 1 }}", as_text=True, x=5) == "6"
    assert render("{{ row.x }}", as_text=True, x={"b": 1, "a": 2}) == '{"b":1,"a":2}'


@pytest.mark.parametrize("source", ["<{{ row.x }}>", "<{% if true %}{{ row.x }}{% endif %}>", "<{{ '' ~ row.x }}>"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "<>"), (5, "<5>"), ({"b": [None], "a": "é"}, '<{"b":[null],"a":"é"}>'), (True, "<True>"), ("a", "<a>")],
)
def test_all_ways_of_mixing_text_and_values_render_alike(
    source: str, value: int | str | dict[str, list[None] | str] | None, expected: str
) -> None:
    assert render(source, x=value) == expected


@pytest.mark.parametrize("name", ["trim", "upper", "truncate(9)", "replace('a', 'b')", "string", "indent", "title"])
def test_a_text_filter_renders_null_as_empty_text_rather_than_none(name: str) -> None:
    assert render("<{{ row.x | " + name + " }}>", x=None) == "<>"


@pytest.mark.parametrize("data", ["{{ 7 * 7 }}", "{% raw %}", "{# x #}", "1e5", "[1]", "null", "{{ row.x }}", "<b>&"])
@pytest.mark.parametrize(
    "source", ["{{ row.x }}", "{{ row.x }}.", "{{ row.x | trim }}", "{% if 1 %}{{ row.x }}{% endif %}"]
)
def test_row_values_are_never_evaluated_or_escaped(source: str, data: str) -> None:
    assert render(source, x=data).removesuffix(".") == data


def test_a_trailing_newline_of_a_template_is_kept() -> None:
    assert render("Title: {{ row.x }}\n", x="a") == "Title: a\n"
    assert render("{% if 1 %}{{ row.x }}{% endif %}\n", x="a") == "a\n"


def test_literal_braces_can_be_written_with_raw() -> None:
    assert render("{% raw %}{{ row.nothing }}{% endraw %} {{ row.x }}", x=1) == "{{ row.nothing }} 1"


# --- filters ---


def test_tojson_does_not_escape_for_html() -> None:
    assert render("{{ row.x | tojson }}", x={"b": "<é'&>", "a": Decimal("1.10")}) == '{"b":"<é\'&>","a":1.10}'
    assert render("{{ row.x | tojson(indent=2) }}", x=[1]) == "[\n  1\n]"
    assert render("{{ row | tojson }}", id=1, day=date(2026, 1, 2)) == '{"id":1,"day":"2026-01-02"}'


def test_fromjson_parses_json_that_the_warehouse_returns_as_text() -> None:
    assert render("{{ row.x | fromjson }}", x='{"a": [1]}') == {"a": [1]}
    assert render("{{ (row.x | fromjson).a[0] }}", x='{"a": [1]}') == 1


def test_functions_whose_result_differs_from_run_to_run_are_not_available() -> None:
    assert "no filter 'random'" in error_message("{{ [1, 2] | random }}")
    assert "The name 'lipsum' is not defined" in error_message("{{ lipsum() }}")


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
def test_row_has_no_attributes_besides_its_columns(source: str, name: str) -> None:
    assert f"no column {name!r}" in error_message(source.format(name), id=1)


def test_any_column_name_can_be_used_as_a_key() -> None:
    assert render("{{ row['Any Column, \"quoted\"'] }}", **cast("dict[str, Any]", {'Any Column, "quoted"': 5})) == 5


def test_an_unknown_column_is_found_without_rows_even_in_code_that_never_runs() -> None:
    columns = Columns(["id", "title"])
    with pytest.raises(TemplateError) as error_info:
        RowTemplate("system", "a\n{% if false %}{{ row.titel | upper }}{% endif %}").bind(columns, {}, as_text=True)
    assert "system, line 2" in str(error_info.value)
    assert "no column 'titel'" in str(error_info.value)
    assert "Did you mean 'title'?" in str(error_info.value)


def test_a_column_may_name_another_column() -> None:
    assert render("{{ row[row.which] }}", which="b", b=5) == 5


def test_an_unknown_column_named_by_another_column_is_an_error_for_the_row() -> None:
    for source in ("{{ row[row.which] }}", "{{ row[row.which] | default('x') }}", "<{{ row[row.which] }}>"):
        with pytest.raises(LookupError, match="no column 'c'"):
            render(source, which="c")


def test_a_leaf_lists_the_columns_that_its_template_names() -> None:
    leaf = RowTemplate("prompt", "{{ row.B }}{{ row['a'] | trim }}{{ row.b }}").bind(
        Columns(["a", "b"]), {}, as_text=True
    )
    assert set(leaf.columns) == {"a", "b"}


@pytest.mark.parametrize(
    "source", ["{{ row.x }}", "{{ row.x }}.", "{{ row.x | string }}", "{{ 'a' ~ row.x }}", "{{ '%s' | format(row.x) }}"]
)
def test_bytes_are_rejected_before_any_filter(source: str) -> None:
    with pytest.raises(UnusableValueError, match="binary"):
        render(source, as_text=True, x=b"\x00")


# --- names ---


def test_a_template_can_use_only_row_and_the_context() -> None:
    message = error_message("{{ ti.conn }}", context={"params": {}, "run_id": "r"}, id=1)
    assert "The name 'ti' is not defined" in message
    assert "row, params, run_id" in message


def test_a_template_can_use_the_context() -> None:
    context = {
        "params": {"tone": "kind"},
        "dag_run": {"conf": {"n": 3}},
        "logical_date": datetime(2026, 1, 2, tzinfo=UTC),
    }
    assert render("{{ params.tone }} {{ dag_run.conf.n }} {{ logical_date.year }}", context=context) == "kind 3 2026"
    assert render("{{ dag_run.conf.n }}", context=context) == 3


def test_a_name_that_the_template_tests_for_may_be_undefined() -> None:
    assert render("{% if ds is defined %}{{ ds }}{% else %}by hand{% endif %}") == "by hand"
    assert render("{{ ds | default('by hand') }}") == "by hand"
    assert render("{% if ds is defined %}{{ ds }}{% endif %}", context={"ds": "2026-01-02"}) == "2026-01-02"


@pytest.mark.parametrize("source", ["{{ params.missing }}", "{{ params.missing }}.", "{{ params.missing | tojson }}"])
def test_an_undefined_value_in_the_context_is_an_error(source: str) -> None:
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        render(source, context={"params": {}})


def test_a_template_may_define_its_own_variables() -> None:
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
def test_the_sandbox_hides_python_internals(source: str) -> None:
    with pytest.raises((jinja2.exceptions.SecurityError, jinja2.UndefinedError, LookupError)):
        render(source, as_text=True, x="data")


def test_values_cannot_be_changed_by_a_template() -> None:
    with pytest.raises(jinja2.exceptions.SecurityError):
        render("{{ row.x.append(1) }}", x=[])
    with pytest.raises(jinja2.exceptions.SecurityError):
        render("{{ params.update({'a': 1}) }}", context={"params": {}})


@pytest.mark.parametrize("source", ["{% include 'x' %}", "{% import 'x' as x %}", "{% extends 'x' %}"])
def test_a_template_cannot_load_another_template(source: str) -> None:
    assert "cannot include" in error_message(source)


def test_the_name_row_cannot_be_reassigned() -> None:
    assert "The name `row` is reserved" in error_message("{% set row = 1 %}{{ row }}")
    assert "The name `row` is reserved" in error_message("{% for row in [1] %}{{ row }}{% endfor %}")


# --- syntax ---


@pytest.mark.parametrize(
    "source", ["a\n{{ row.x", "a\n{{ row.x | nothing }}", "a\n{% if %}", "a\n{{ 1 is nothing }}", "\n{{ }}"]
)
def test_a_syntax_error_is_found_before_the_columns_are_known_and_names_its_line(source: str) -> None:
    with pytest.raises(TemplateError, match=r"^body\.a, line 2: "):
        RowTemplate("body.a", source)


def test_an_unknown_filter_is_found_even_in_code_that_never_runs() -> None:
    with pytest.raises(TemplateError, match="no filter 'nothing'"):
        RowTemplate("prompt", "{% if false %}{{ 1 | nothing }}{% endif %}")


def test_a_syntax_error_explains_how_to_write_literal_braces() -> None:
    with pytest.raises(TemplateError, match=r"\{% raw %\}"):
        RowTemplate("prompt", 'Answer as {{"label": 1}')


def test_text_without_jinja_is_not_a_template() -> None:
    assert not is_template('{"a": {"b": 1}} # 100%')
    assert is_template("{{ a }}")
    assert is_template("{% raw %}{% endraw %}")
    assert is_template("{# nothing #}")


# --- properties ---

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
def test_the_fast_path_renders_the_same_text_as_jinja(
    suffix: str, reference: str, row: tuple[Any, Any, Any, Any]
) -> None:
    columns = Columns(COLUMNS)
    source = f"Text {reference}{suffix}"
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
def test_the_fast_path_of_a_single_column_returns_the_same_object_as_jinja(
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
def test_any_row_value_is_treated_as_data(data: str, source: str) -> None:
    expected = {"{{ row.x | trim }}": data.strip(), "a {{ row.x }} b": f"a {data} b"}.get(source, data)
    assert render(source, x=data) == expected
