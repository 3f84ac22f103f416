"""Files as content parts of a request."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batch.core.requests.file_parts import (
    MAX_FILE_BYTES,
    ReadFile,
    compact,
    file_part,
    file_type,
    missing_file,
)
from airflow_provider_batch.core.requests.file_paths import Location, UnusableFileError, parse_root
from airflow_provider_batch.core.requests.render import RequestSpec, check, compile_renderer
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.tokens.request import estimate_request
from airflow_provider_batch.exceptions import InputError, TemplateError
from tests.core.building import CHAT, EMBEDDINGS, RESPONSES
from tests.files import gif, jpeg, mp3, pdf, png, wav, webp

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
VIDEO = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2"


@pytest.mark.parametrize(
    ("content", "name", "type_name"),
    [
        (png(), "photo.jpg", "image/png"),
        (jpeg(), "photo.png", "image/jpeg"),
        (gif(), "photo", "image/gif"),
        (webp(), "photo.png", "image/webp"),
        (pdf(), "scan.jpg", "application/pdf"),
        (b"\n\n" + pdf(), "scan.pdf", "application/pdf"),
        (wav(), "call.mp3", "audio/wav"),
        (mp3(), "call.mp3", "audio/mpeg"),
        (b"ID3\x04\x00" + mp3(), "call", "audio/mpeg"),
        (HEIC, "photo.jpg", "a HEIC image"),
        (VIDEO, "film.mp4", "a video"),
        (b"II*\x00" + bytes(20), "scan.tif", "a TIFF image"),
        (b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00", "photo.bmp", "a BMP image"),
        (b"<html>404 Not Found</html>", "photo.jpg", "text, although its name ends in .jpg"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "logo.svg", "an SVG image"),
        (b"BMW manual", "manual.txt", "text/plain"),
        ("\ufefftext".encode("utf-16"), "text", "of an unknown type"),
        (b"a,b\n1,2\n", "table.CSV", "text/csv"),
        (b"PK\x03\x04" + bytes(30), "letter.docx", "application/vnd.openxmlformats-officedocument"),
        (b"PK\x03\x04" + bytes(30), "all.zip", "a ZIP archive"),
        (bytes(range(256)), "data.bin", "of an unknown type"),
    ],
)
def test_the_bytes_of_a_file_decide_what_it_is(content: bytes, name: str, type_name: str) -> None:
    assert file_type(content, name).name.startswith(type_name)


def part(content: bytes, name: str, endpoint: str, detail: str | None = None) -> dict[str, Any]:
    return file_part(ReadFile(Location("s3", "aws", "bucket", f"photos/{name}"), content), endpoint, detail)


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_chat_completions_takes_images_pdfs_and_audio() -> None:
    url = f"data:image/png;base64,{base64_of(png())}"
    assert part(png(), "a.png", CHAT) == {"type": "image_url", "image_url": {"url": url}}
    assert part(png(), "a.png", CHAT, "low") == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    data = f"data:application/pdf;base64,{base64_of(pdf())}"
    assert part(pdf(), "scan", CHAT) == {"type": "file", "file": {"filename": "scan.pdf", "file_data": data}}
    sound = {"data": base64_of(wav()), "format": "wav"}
    assert part(wav(), "call.mp3", CHAT) == {"type": "input_audio", "input_audio": sound}
    assert part(mp3(), "call.mp3", CHAT)["input_audio"]["format"] == "mp3"


def test_the_responses_api_takes_images_and_documents() -> None:
    url = f"data:image/png;base64,{base64_of(png())}"
    assert part(png(), "a.png", RESPONSES) == {"type": "input_image", "image_url": url, "detail": "auto"}
    data = f"data:application/pdf;base64,{base64_of(pdf())}"
    document = {"type": "input_file", "filename": "scan.pdf", "file_data": data}
    assert part(pdf(), "scan.pdf", RESPONSES, "low") == {**document, "detail": "low"}
    assert part(b"notes", "notes", RESPONSES)["filename"] == "notes.txt"
    assert part(b"a,b\n", "t.csv", RESPONSES)["file_data"].startswith("data:text/csv;base64,")


@pytest.mark.parametrize(
    ("content", "name", "endpoint", "code", "message"),
    [
        (b"", "a.png", CHAT, "file_empty", "'s3://aws@bucket/photos/a.png' is empty."),
        (HEIC, "a.jpg", CHAT, "file_type", "a.jpg' is a HEIC image. /v1/chat/completions takes PNG, JPEG, WebP"),
        (wav(), "a.wav", RESPONSES, "file_type", "is of type audio/wav. /v1/responses takes"),
        (b"text", "a.txt", CHAT, "file_type", "is of type text/plain."),
        (bytes(MAX_FILE_BYTES + 1), "a.png", CHAT, "file_too_large", "has 50,000,001 bytes, but the API takes"),
    ],
)
def test_a_file_that_the_endpoint_does_not_take_costs_its_row(
    content: bytes, name: str, endpoint: str, code: str, message: str
) -> None:
    with pytest.raises(UnusableFileError) as raised:
        part(content, name, endpoint)
    assert raised.value.code == code
    assert message in raised.value.message


def render(row: dict[str, Any], content: bytes | Callable[[Location], bytes] = b"", **changes: Any) -> Request:
    spec = RequestSpec(
        **{
            "endpoint": CHAT,
            "custom_id": "{{ row.id }}",
            "model": "gpt-5-mini",
            "prompt": "Describe it.",
            "files": "s3://bucket/photos/{{ row.photo }}",
            **changes,
        }
    )
    read = content if callable(content) else lambda _: content
    return compile_renderer(spec, list(row), {}, read, max_bytes=200_000_000)([tuple(row.values())], 1)[0]


#: a job whose rows name a list of files
LISTS = RequestSpec(
    custom_id="{{ row.id }}", model="m", prompt="Look.", files="{{ row.photos }}", files_root="/data/photos/"
)


def parts_of(request: Request) -> list[dict[str, Any]]:
    body = json.loads(request.body)
    parts: list[dict[str, Any]] = body.get("messages", body.get("input"))[0]["content"]
    return parts


def test_the_files_follow_the_prompt() -> None:
    request = render({"id": 1, "photo": "a.png"}, png())
    assert [part["type"] for part in parts_of(request)] == ["text", "image_url"]
    assert request.files == ("s3://bucket/photos/a.png",)
    request = render({"id": 1, "photo": "a.png"}, png(), endpoint=RESPONSES)
    assert [part["type"] for part in parts_of(request)] == ["input_text", "input_image"]


def test_several_files_keep_their_order_and_detail() -> None:
    files = [{"path": "s3://bucket/{{ row.front }}", "detail": "low"}, "s3://bucket/{{ row.back }}"]
    contents = {"a": png(), "b": jpeg()}
    request = render({"id": 1, "front": "a", "back": "b"}, lambda location: contents[location.path], files=files)
    image, other_image = parts_of(request)[1:]
    assert image["image_url"]["detail"] == "low"
    assert other_image["image_url"]["url"].startswith("data:image/jpeg")


@pytest.mark.parametrize("photos", [["a", "b"], '["a", "b"]', ("a", "b")])
def test_an_expression_may_yield_a_list_of_paths(photos: Any) -> None:
    request = render({"id": 1, "photos": photos}, png(), files="{{ row.photos }}", files_root="s3://bucket/photos")
    assert request.files == ("s3://bucket/photos/a", "s3://bucket/photos/b")
    assert len(parts_of(request)) == 3


@pytest.mark.parametrize("photo", [None, "", "  "])
def test_a_row_without_a_path_is_sent_without_a_file(photo: str | None) -> None:
    request = render({"id": 1, "photo": photo}, png(), files="{{ row.photo }}", files_root="/data/photos")
    assert parts_of(request) == [{"type": "text", "text": "Describe it."}]
    assert request.problem is None


def test_a_row_with_an_unusable_file_has_a_problem_instead_of_a_request() -> None:
    request = render({"id": 1, "photo": "../a.png"}, png())
    assert request.problem is not None
    assert request.problem.code == "file_path"
    assert request.model == "gpt-5-mini"


@pytest.mark.parametrize(("path", "code"), [("[" * 100_000, "file_missing"), ("[\ud800", "file_path")])
def test_a_path_that_only_resembles_a_list_costs_its_row_and_no_other(path: str, code: str) -> None:
    def read(location: Location) -> bytes:
        raise missing_file(location)

    renderer = compile_renderer(LISTS, ["id", "photos"], {}, read)
    renderer.locations((1, path))
    problem = renderer([(1, path)], 1)[0].problem
    assert problem is not None
    assert problem.code == code


def test_paths_that_are_not_text_are_an_error_that_names_the_row() -> None:
    renderer = compile_renderer(LISTS, ["id", "photos"], {}, lambda _: png())
    assert renderer.locations((1, [b"a.png"])) == []
    with pytest.raises(TemplateError, match=r"Row 1 \(custom_id '1'\), files, column 'photos': The value is binary"):
        renderer([(1, [b"a.png"])], 1)


def test_the_files_of_a_row_together_may_not_exceed_the_limit() -> None:
    content = png() + bytes(MAX_FILE_BYTES // 2)
    files = ["s3://bucket/{{ row.a }}", "s3://bucket/{{ row.b }}"]
    request = render({"id": 1, "a": "a", "b": "b"}, content, files=files)
    assert request.problem is not None
    assert "The 2 files of the row (s3://bucket/a, s3://bucket/b) have more than 50,000,000 bytes together" in (
        request.problem.message
    )


def test_a_request_that_no_input_file_can_hold_costs_its_row() -> None:
    spec = RequestSpec(custom_id="{{ row.id }}", model="m", prompt="Look.", files="/data/photos/{{ row.photo }}")
    renderer = compile_renderer(spec, ["id", "photo"], {}, lambda _: png() + bytes(3_000), max_bytes=4_000)
    problem = renderer([(1, "a.png")], 1)[0].problem
    assert problem is not None
    assert "With 1 file (file:///data/photos/a.png), the request has" in problem.message


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
@pytest.mark.parametrize(("content", "tokens"), [(png(512, 512), 100), (pdf(7), 7_000), (pdf(1), 1_000)])
def test_the_tokens_of_files_are_estimated(endpoint: str, content: bytes, tokens: int) -> None:
    request = render({"id": 1, "photo": "a"}, content, endpoint=endpoint)
    estimate = estimate_request(request.body, "gpt-5-mini")
    assert len(estimate.media) == 1
    assert estimate.input_tokens >= tokens


def test_an_image_and_an_audio_file_are_estimated_by_their_content() -> None:
    small, large = (
        estimate_request(render({"id": 1, "photo": "a"}, png(size, size)).body, "gpt-5-mini").input_tokens
        for size in (64, 1024)
    )
    assert small < large
    short, long = (
        estimate_request(render({"id": 1, "photo": "a"}, wav(seconds)).body, "gpt-4o-audio").input_tokens
        for seconds in (1, 60)
    )
    assert long - short == pytest.approx(590, abs=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": EMBEDDINGS}, "files: /v1/embeddings does not support this argument"),
        ({"prompt": None}, "the argument `prompt` is required"),
        ({"prompt": None, "request": lambda row: row}, "cannot be combined with `request`"),
        ({"files": []}, "files: The list is empty"),
        ({"files": 5}, "files: Expected a string"),
        ({"files": ""}, "files: The value must not be empty"),
        ({"files": {"url": "s3://b/{{ row.a }}"}}, "has no key 'url'"),
        ({"files": {"detail": "low"}}, "needs the key 'path'"),
        ({"files": {"path": "s3://b/{{ row.a }}", "detail": "tiny"}}, "'detail' must be one of auto, low, high"),
        ({"files": "{{ row.photo }}"}, "files: The path comes from the row as a whole"),
        ({"files": ["s3://b/{{ row.a }}", "{% if row.a %}x{% endif %}"]}, "files[1]: The path comes from the row"),
        ({"files": "/{{ row.photo }}"}, "any file on the worker's disk"),
        ({"files": "https://example.com/{{ row.photo }}"}, "put its URL into the prompt"),
        ({"files": "s3://{{ row.bucket }}/a"}, "must name the bucket"),
        ({"files": "photos/{{ row.photo }}"}, "must begin with the address of a folder"),
        ({"files_root": 5}, "files_root: Expected the address of a folder"),
        ({"files_root": "photos"}, "files_root: 'photos/' must begin with"),
        ({"files": "s3://bucket/photos/"}, "files: 's3://bucket/photos/' is a folder. Add the name of the file"),
        ({"files": "s3://user:word@b/{{ row.a }}"}, "write the id of the connection before the bucket: 's3://my"),
        ({"files": "/data/\n{{ row.a }}/"}, "contains a control character"),
        ({"files_root": "s3://b/{{ row.folder }}"}, "mentions the row, but the folder is the same for every row"),
        ({"files": "s3://bucket/{{ row.photo"}, "The template has a syntax error"),
        ({"files": "s3://bucket/{row.photo}"}, "Did you mean '{{ row.photo }}'"),
    ],
)
def test_a_wrong_argument_is_refused_while_the_dag_is_parsed(changes: dict[str, Any], message: str) -> None:
    arguments = {"custom_id": "{{ row.id }}", "model": "m", "prompt": "Describe it.", "files": "s3://b/{{ row.a }}"}
    with pytest.raises(InputError) as raised:
        check(RequestSpec(**{**arguments, **changes}))
    assert message in str(raised.value)


def test_files_that_depend_on_the_row_make_the_request_depend_on_it() -> None:
    check(RequestSpec(custom_id="{{ row.id }}", model="m", prompt="Describe it.", files="s3://b/{{ row.a }}"))


def test_the_root_without_a_connection_is_the_default_of_the_filesystem() -> None:
    assert parse_root("files", "gs://bucket/a") == Location("gs", "", "bucket", "")


def test_data_is_described_and_everything_else_is_kept() -> None:
    url = f"data:image/png;base64,{base64_of(png())}"
    linked = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    sound = {"input_audio": {"data": base64_of(wav(2)), "format": "wav"}}
    content = [{"text": "data: 5"}, linked, {"image_url": {"url": url}}, sound]
    body = {"model": "m", "messages": [{"content": content}]}
    assert compact(body, ("s3://b/call.wav",)) == {
        "model": "m",
        "messages": [
            {
                "content": [
                    {"text": "data: 5"},
                    linked,
                    {"image_url": {"url": f"<image/png, {len(png())} bytes>"}},
                    {"input_audio": {"data": "<audio/wav, 16 KB, s3://b/call.wav>", "format": "wav"}},
                ]
            }
        ],
    }
