"""A template has bounds: what it may produce for a row, how long it may take, and how deeply it may be nested."""

from __future__ import annotations

import threading
import time
from functools import reduce
from typing import Any

import pytest

from airflow_provider_batch.core.requests import bounds
from airflow_provider_batch.core.requests.render import RequestSpec, check, compile_renderer
from airflow_provider_batch.exceptions import InputError, TemplateError


def render(template: str, **row: Any) -> str:
    """Return the body of a request whose prompt is `template`, with text next to it."""
    spec = RequestSpec(custom_id="{{ row.id }}", model="gpt-5-mini", prompt=f"Prompt: {template}")
    return compile_renderer(spec, ["id", *row], {})([(7, *row.values())], 3)[0].body.decode()


DOUBLED = "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**10 }}",
    "{{ 10**10 * [1] }}",
    "{{ row.n ** (10**9) }}",
    "{{ (2**99999) * (2**99999) }}",
    "{{ 'x'.ljust(10**10) }}",
    "{{ 'x'.zfill(10**10) }}",
    "{{ ('x' * 9999).replace('', 'y' * 99999) }}",
    "{{ ('x' * 9999).join('y' * 99999) }}",
    "{{ ('\\t' * 9999).expandtabs(10**7) }}",
    "{{ ('x' * 99999).translate({120: 'y' * 99999}) }}",
    "{{ (1).to_bytes(10**10, 'big') }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%.999999999f' | format(1.5) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ '{:>{width}}'.format(1, width=10**10) }}",
    "{{ 'x' | center(10**10) }}",
    "{{ ('x\\n' * 9999) | indent(10**8) }}",
    "{{ ('x' * 9999) | replace('x', 'y' * 99999) }}",
    "{{ ('x ' * 9999) | wordwrap(1, wrapstring='y' * 99999) }}",
    "{{ ('x' * 9999) | join('y' * 99999) }}",
    "{{ [1] | batch(10**10, 'x') | list }}",
    "{{ [1] | slice(10**10) | list }}",
    "{{ range(99999) | map('center', 99999) | list | length }}",
    "{{ ([[1] * 999] * 99999) | sum(start=[]) }}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "".join(["{% set a = 'xxxxxxxxx' %}", *["{% set a %}{{ a }}{{ a }}{% endset %}"] * 60]),
]
SLOW = [
    "{% macro m(n) %}{% if n < 40 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}",
    "{{ range(99999) | select('in', range(99999) | list) | list | length }}",
    "{% set b = 'x' * 9999999 %}{% for i in range(99999) %}{% if 'y' in b %}{% endif %}{% endfor %}",
    DOUBLED + "{{ '%s' % ns.x }}",
    DOUBLED + "{{ ns.x | pprint }}",
    DOUBLED + "{{ ns.x | tojson }}",
]


@pytest.mark.parametrize("template", ENDLESS)
def test_a_template_that_produces_too_much_is_an_error_that_names_the_row(template: str) -> None:
    started_at = time.monotonic()
    with pytest.raises(TemplateError, match=r"Row 3 \(custom_id '7'\), prompt: The template (produces|computes)"):
        render(template, n=10)
    assert time.monotonic() - started_at < 30


@pytest.mark.parametrize("template", SLOW)
def test_a_template_that_takes_too_long_is_interrupted_with_an_error_that_names_the_row(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.3)
    with pytest.raises(TemplateError, match=r"Row 3 \(custom_id '7'\), prompt: The template (takes|produces) more"):
        render(template)


def test_a_row_is_interrupted_in_any_thread_and_the_next_row_of_the_thread_is_rendered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.3)
    results: list[str] = []

    def work() -> None:
        with pytest.raises(TemplateError, match="takes more than"):
            render(SLOW[0])
        time.sleep(1)
        results.append(render("{{ row.x | trim }}", x=" fine "))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "Prompt: fine" in results[0]


def test_a_macro_that_calls_itself_without_end_is_an_error_that_names_the_row() -> None:
    with pytest.raises(TemplateError, match=r"Row 3 .* nested too deeply: a macro or a loop may call itself"):
        render("{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(0) }}")


def test_large_texts_and_loops_within_the_bounds_are_rendered() -> None:
    assert len(render("{{ row.x | trim }}", x="x" * 20_000_000)) > 20_000_000
    assert "99998" in render("{% for i in range(99999) %}{{ i }} {% endfor %}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ " + "(" * 10_000,
        "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}",
        "{{ " + "[" * 10_000,
        "{{ " + "not " * 10_000 + "1 }}",
        "{{ " + "1 + " * 10_000 + "1 }}",
        "{{ row.x" + " | trim" * 10_000 + " }}",
        "{{ row.x" + ".a" * 10_000 + " }}",
        "{% if row.x %}" * 1_000 + "{% endif %}" * 1_000,
        "{% for i in row.x %}" * 21 + "{% endfor %}" * 21,
        "{% if row.x %}" + "{% elif row.x %}" * 10_000 + "{% endif %}",
    ],
    ids=lambda template: template[:20],
)
def test_a_template_that_is_nested_too_deeply_is_an_error_when_the_dag_is_parsed(template: str) -> None:
    with pytest.raises(TemplateError, match=r"^prompt: The template is nested too deeply"):
        check(RequestSpec(custom_id="{{ row.id }}", model="gpt-5-mini", prompt=template))


def test_a_template_with_many_operators_is_not_nested_too_deeply() -> None:
    assert "Prompt: " + "a" * 50 in render("{{ " + " + ".join(["row.x"] * 50) + " }}", x="a")


@pytest.mark.parametrize("template", ["{{ row.x }}", "{{ row.x | tojson }}", "{{ '%s' % row.x }}"])
def test_a_value_that_is_nested_too_deeply_is_an_error_that_names_the_row(template: str) -> None:
    nested: list[Any] = reduce(lambda inner, _: [inner], range(10_000), [])
    with pytest.raises(InputError, match=r"Row 3 \(custom_id '7'\), prompt.*nested too deeply"):
        render(template, x=nested)


def test_the_error_for_a_value_that_is_nested_too_deeply_names_the_column() -> None:
    nested: list[Any] = reduce(lambda inner, _: [inner], range(10_000), [])
    with pytest.raises(InputError, match="column 'x': The value is nested too deeply to be written as JSON"):
        render("{{ row.x | tojson }}", x=nested)


# Texts that differ from run to run


@pytest.mark.parametrize(
    "template",
    [
        "{{ row }}",
        "{{ row | string }}",
        "{{ row | pprint }}",
        "{{ row | tojson }}",
        "{{ '%s' % row }}",
        "{{ '%r' % row }}",
        "{{ '%s' | format(row) }}",
        "{{ '{}'.format(row) }}",
        "{{ '{!r}'.format(row) }}",
        "{{ '' ~ row }}",
        "{{ [row] | join }}",
    ],
)
def test_a_row_shows_itself_as_its_json(template: str) -> None:
    assert '{\\"id\\":7,\\"x\\":[1]}' in render(template, x=[1])


@pytest.mark.parametrize("value", ["cycler('a')", "joiner()", "range", "'x'.upper", "[1] | map('string')", "loop"])
@pytest.mark.parametrize(
    "template",
    [
        "{{ V }}",
        "{{ '%s' % (V) }}",
        "{{ '{}'.format(V) }}",
        "{{ [V] | join }}",
        "{{ [V] | pprint }}",
        "{{ '%s' % ([V],) }}",
    ],
)
def test_an_object_that_would_show_its_address_is_an_error_that_names_the_row(template: str, value: str) -> None:
    template = "{% for i in [1] %}" + template.replace("V", value) + "{% endfor %}"
    with pytest.raises(InputError, match="Row 3"):
        render(template)


def test_a_set_is_an_error_because_its_order_differs_from_run_to_run() -> None:
    for template in ("{{ row.x }}", "{{ '%s' % row.x }}"):
        with pytest.raises(InputError, match="The value is a set, which has no order"):
            render(template, x={"a", "b"})
    assert "a, b" in render("{{ row.x | sort | join(', ') }}", x={"a", "b"})
