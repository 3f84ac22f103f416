"""`file_name` of `write_reports` returns safe file names, whatever a company is called."""

from __future__ import annotations

import re
import runpy
import secrets
import unicodedata
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import pytest
from airflow.sdk import ObjectStoragePath
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_batch.demo.home import dags_folder

FileName = Callable[[str, str], str]
AnyTest = TypeVar("AnyTest", bound=Callable[..., None])
HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "..\\..\\boot.ini",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "\\\\server\\share",
    "file:///etc/passwd",
    "s3://other-bucket/page",
    "~root",
    "nul\0byte",
    "new\nline",
    "con",
    "AUX.html",
    "a" * 100_000,
    "é" * 300,
    "株" * 300,
    "\ud800",
    "\u202egpj.exe",
    "..\u2215..\u2044etc",
    "%2e%2e%2f",
    "&#47;&#x2f;&sol;&period;&period;",
    "{{ row.id }}",
    "-rf *",
    "$(id)`id`;|&",
    ".hidden",
    "trailing. ",
]
names = (
    st.text(st.characters(), max_size=200) | st.sampled_from(HOSTILE_NAMES) | st.text("./\\%:&#;~\0 aA", max_size=30)
)


@pytest.fixture(scope="module")
def file_name() -> FileName:
    """Return the function from the DAG file."""
    function: FileName = runpy.run_path(str(dags_folder() / "write_reports.py"))["file_name"]
    return function


def with_every_example(test: AnyTest) -> AnyTest:
    """Let Hypothesis try each of the names above in every run."""
    for name in HOSTILE_NAMES:
        test = example(name, name)(test)
    return test


@with_every_example
@given(names, names)
def test_a_file_name_is_valid_on_every_file_system(file_name: FileName, title: str, key: str) -> None:
    name = file_name(title, key)

    assert re.fullmatch(r"([a-z0-9][a-z0-9-]*-)?[0-9a-f]{16}\.html", name)
    assert len(name) <= 77 + len(".html")
    assert PureWindowsPath(name).parts == (name,)
    assert not PureWindowsPath(name).is_reserved()


@with_every_example
@given(names, names)
def test_no_title_or_key_leads_out_of_the_folder(file_name: FileName, title: str, key: str) -> None:
    for folder in (ObjectStoragePath("file:///srv/reports/2026-Q3"), ObjectStoragePath("memory://bucket/reports")):
        page = folder / file_name(title, key)
        assert page.parent.path == folder.path
        assert (page.protocol, page.bucket) == (folder.protocol, folder.bucket)


@given(names, names, names)
@example("Blatt & Co", "C-01", "C-02")
@example("x", "nul\0", "nul")
@example("x", "\ud800", "\udfff")
@example("x", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"))
def test_file_names_are_equal_exactly_if_the_keys_are(
    file_name: FileName, title: str, key: str, other_key: str
) -> None:
    assert file_name(title, key) == file_name(title, key)
    assert (file_name(title, key) == file_name(title, other_key)) == (key == other_key)


def test_similar_titles_get_different_files_on_a_real_disk(file_name: FileName, tmp_path: Path) -> None:
    titles = [*HOSTILE_NAMES, "Blatt & Co", "Blatt + Co", "BLATT CO", "blatt-co", "株式会社みどり"]
    for number, title in enumerate(titles):
        (tmp_path / "in" / file_name(title, f"C-{number}")).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / file_name(title, f"C-{number}")).write_text("page", encoding="utf-8")

    assert len(list((tmp_path / "in").iterdir())) == len(titles)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("title", "prefix"),
    [
        ("Grüne Wände GmbH", "grune-wande-gmbh-"),
        ("AC/DC", "ac-dc-"),
        ("../../Compost", "compost-"),
        ("Straße 5", "strasse-5-"),
    ],
)
def test_the_file_name_starts_with_the_readable_title(file_name: FileName, title: str, prefix: str) -> None:
    assert file_name(title, secrets.token_hex(4)).startswith(prefix)
