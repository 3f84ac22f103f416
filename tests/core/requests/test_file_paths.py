"""Which file a row may name."""

from __future__ import annotations

import posixpath
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.file_paths import UnusableFileError, locate, parse_root
from airflow_provider_batch.exceptions import InputError


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("s3://aws_default@bucket/photos/", "s3://aws_default@bucket/photos/"),
        ("s3://bucket/photos/img-", "s3://bucket/photos/"),
        ("S3://bucket/", "s3://bucket/"),
        ("/data/photos/", "file:///data/photos/"),
        ("file:///data/photos/img", "file:///data/photos/"),
    ],
)
def test_a_root_is_the_folder_in_which_the_text_ends(text: str, root: str) -> None:
    assert str(parse_root("files", text)) == root


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photos/", "must begin with the address of a folder"),
        ("", "must begin with the address of a folder"),
        ("/", "any file on the worker's disk"),
        ("/img", "any file on the worker's disk"),
        ("file:///", "any file on the worker's disk"),
        ("s3://bucket", "must name the bucket"),
        ("s3://aws_default@", "must name the bucket"),
        ("s3://aws_default@/photos/", "must name the bucket"),
        ("https://example.com/photos/", "put its URL into the prompt"),
        ("http://169.254.169.254/", "put its URL into the prompt"),
        ("simplecache::s3://bucket/", "chains filesystems"),
        ("/data/../etc/", "contains `..`"),
        ("s3://bucket/%2e%2e/", "contains `..`"),
    ],
)
def test_a_root_that_is_no_folder_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_root("files", text)


@pytest.mark.parametrize(
    ("root", "text", "address"),
    [
        ("s3://aws@bucket/photos/", "a.png", "s3://aws@bucket/photos/a.png"),
        ("s3://aws@bucket/photos/", "2026/a b?c#d.png", "s3://aws@bucket/photos/2026/a b?c#d.png"),
        ("s3://aws@bucket/photos/", "s3://bucket/photos/a.png", "s3://aws@bucket/photos/a.png"),
        ("s3://aws@bucket/photos/", "s3://aws@bucket/photos/a.png", "s3://aws@bucket/photos/a.png"),
        ("/data/photos/", "a.png", "file:///data/photos/a.png"),
        ("/data/photos/", "/data/photos/a.png", "file:///data/photos/a.png"),
        ("/data/photos/", "file:///data/photos/a.png", "file:///data/photos/a.png"),
        ("s3://bucket/", "..a/b..png", "s3://bucket/..a/b..png"),
        ("s3://bucket/", "100%.png", "s3://bucket/100%.png"),
    ],
)
def test_a_path_is_relative_to_the_root_or_absolute(root: str, text: str, address: str) -> None:
    assert str(locate(parse_root("files", root), text)) == address


@pytest.mark.parametrize("text", ["", "  ", "s3://bucket/photos/", "s3://bucket/photos/2026/"])
def test_a_blank_path_or_a_folder_names_no_file(text: str) -> None:
    assert locate(parse_root("files", "s3://bucket/photos/"), text) is None


@pytest.mark.parametrize(
    ("root", "text", "reason"),
    [
        ("/data/photos/", "/etc/passwd", "outside"),
        ("/data/photos/", "../secret", "`..`"),
        ("/data/photos/", "/data/photos/../secret", "`..`"),
        ("/data/photos/", "%2e%2e/secret", "`..`"),
        ("/data/photos/", "%252e%252e%252fsecret", "`..`"),
        ("/data/photos/", "..\\secret", "`..`"),
        ("/data/photos/", "/data/photos-secret/a", "outside"),
        ("/data/photos/", "file://host/data/photos/a", "another machine"),
        ("/data/photos/", "s3://bucket/a", "begins with s3://"),
        ("/data/photos/", "http://169.254.169.254/latest/meta-data", "begins with http://"),
        ("/data/photos/", "a\0.png", "control character"),
        ("/data/photos/", "\ud800.png", "half of a character"),
        ("s3://aws@bucket/photos/", "s3://other/photos/a", "another bucket"),
        ("s3://aws@bucket/photos/", "s3://admin@bucket/photos/a", "another connection"),
        ("s3://aws@bucket/photos/", "s3://bucket/secret/a", "outside"),
        ("s3://aws@bucket/photos/", "file:///etc/passwd", "begins with file://"),
        ("s3://aws@bucket/photos/", "zip://a::s3://bucket/photos/b", "begins with zip://"),
        ("s3://aws@bucket/photos/", "a::b", "`::`"),
    ],
)
def test_a_path_that_leaves_the_root_costs_its_row(root: str, text: str, reason: str) -> None:
    with pytest.raises(UnusableFileError, match=re.escape(reason)) as raised:
        locate(parse_root("files", root), text)
    assert raised.value.code == "file_path"


pieces = st.sampled_from(
    [
        *("..", ".", "/", "//", "\\", "%2e", "%2f", "%252e", "a", "b.png", "photos", "data", "secret", "etc/passwd"),
        *("s3://", "file://", "http://", "bucket", "other", "aws@", "::", "\0", " ", "?", "#", "~", "é"),
    ]
)


@given(
    root=st.sampled_from(["/data/photos/", "s3://aws@bucket/photos/", "s3://bucket/", "memory://bucket/a/"]),
    text=st.lists(pieces, max_size=8).map("".join) | st.text(max_size=30),
)
@example(root="/data/photos/", text="/data/photos/a/%2e%2e/%2e%2e/%2e%2e/etc/passwd")
def test_no_path_ever_leaves_its_root(root: str, text: str) -> None:
    parsed_root = parse_root("files", root)
    try:
        location = locate(parsed_root, text)
    except UnusableFileError:
        return
    if location is not None:
        assert location[:3] == parsed_root[:3]
        normalized = posixpath.normpath(location.path)
        assert f"{normalized}/".startswith(posixpath.normpath(f"/{parsed_root.path}").lstrip("/") + "/") or (
            f"{normalized}/".startswith(parsed_root.path)
        )
        assert ".." not in normalized.split("/")
