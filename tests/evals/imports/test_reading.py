"""Broken and hostile files end in an error that names the file and the line, in bounded time and memory."""

from __future__ import annotations

import pytest

from airflow_provider_batch.evals.imports import reading
from airflow_provider_batch.evals.imports.reading import decode_text, read_csv, read_json_lines, read_json_records
from airflow_provider_batch.evals.imports.yaml_values import read_yaml
from airflow_provider_batch.exceptions import InputError

LAUGHS = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{previous}'] * 10)}]\n"
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{previous}'] * 10)}]}}\n"
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_a_byte_order_mark_and_windows_line_ends_are_not_part_of_the_text() -> None:
    assert list(read_csv(b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n\r\n', "f")) == [(3, {"a": "1", "b": "x\r\ny"})]
    assert list(read_json_lines(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n', "f")) == [(1, {"a": 1}), (3, {"a": 2})]


def test_a_line_separator_inside_a_json_text_does_not_end_the_line() -> None:
    assert list(read_json_lines('{"a": "x\u2028y"}\n'.encode(), "f")) == [(1, {"a": "x\u2028y"})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_is_separated_by_what_its_first_line_has(delimiter: str) -> None:
    text = f"a{delimiter}b\n1{delimiter}2\n"
    assert list(read_csv(text.encode(), "f")) == [(2, {"a": "1", "b": "2"})]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\n\xff\xfe", "f is not UTF-8, in line 3"),
        ("a,b".encode("utf-16"), "f is not UTF-8, in line 1"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "f is only a pointer to a file in Git LFS"),
    ],
)
def test_bytes_that_are_no_text(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_text(data, "f")


def test_a_file_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    with pytest.raises(InputError, match="f is larger than 1 MB"):
        decode_text(b"x" * ((1 << 20) + 1), "f")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n1,2,3\n", "Line 2 of f has 3 values, but the first line names 2 columns"),
        (b"a,a\n1,2\n", "f has the column 'a' more than once"),
        (b'a\n"b" c\n', "f is not valid CSV near line 2"),
    ],
)
def test_broken_csv(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_csv(data, "f"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "Line 2 of f is not valid JSON"),
        (b"[1]\n", "Line 1 of f is not a JSON object"),
        (b"[" * 200_000, "Line 1 of f is nested too deeply"),
    ],
)
def test_broken_json_lines(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_json_lines(data, "f"))


def test_broken_json_documents() -> None:
    with pytest.raises(InputError, match="Element 2 of f is not a JSON object"):
        list(read_json_records(b'[{"a": 1}, 2]', "f"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "has more than 500,000 values, with its aliases replaced"),
        (MERGES, "has more than 500,000 values, with its aliases replaced"),
        ("a: &a [*a]", "A value in line 1 contains itself"),
        ("[" * 150 + "]" * 150, "is nested more than 100 deep"),
        ("[" * 10_000, "is not valid YAML: it is nested too deeply"),
        ("a: 1\nb: 2\na: 3\n", "The key 'a' is repeated in line 3"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: [1", "is not valid YAML"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("? [1]\n: 2\n", "A key in line 1 is not text"),
        ("", "is empty"),
        (f"a: {'x' * (5 << 20)}", "is larger than 4 MB"),
    ],
)
def test_broken_yaml(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"f.*{message}"):
        read_yaml(text.encode(), "f")


def test_yaml_reads_words_and_numbers_as_javascript_does() -> None:
    text = "[yes, No, on, 12:30, 2024-01-31, 010, 0x1F, 1_000, 1e3, .5, true, ~, null, 'true', 1.0]"
    assert read_yaml(text.encode(), "f") == [
        "yes", "No", "on", "12:30", "2024-01-31", 10, 31, "1_000", 1000.0, 0.5, True, None, None, "true", 1.0,
    ]  # fmt: skip


def test_yaml_anchors_and_merges_work() -> None:
    text = "base: &base {type: contains, value: a}\ntests:\n- *base\n- {<<: *base, value: b}\n"
    assert read_yaml(text.encode(), "f")["tests"] == [
        {"type": "contains", "value": "a"},
        {"type": "contains", "value": "b"},
    ]
