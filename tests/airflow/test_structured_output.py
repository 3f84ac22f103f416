"""Structured output whose schema OpenAI, and the local server, do not take as it is written."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import UUID4, Base64Bytes, BaseModel, Field, HttpUrl, IPvAnyAddress, NaiveDatetime

from tests.airflow.jobs import query, run_job


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    breed: str | None = None


class Page(BaseModel):
    url: HttpUrl
    tags: set[str]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


def test_a_url_a_set_and_a_discriminated_union_are_sent_and_land(warehouse: Path) -> None:
    result = run_job(output_schema=Page, land={"columns": {"url": "url", "kind": "pet.kind", "tags": "tags"}})

    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    for url, kind, tags in query(warehouse, "SELECT url, kind, tags FROM answers"):
        assert url == "https://example.com/"
        assert kind in ("cat", "dog")
        assert len(json.loads(tags)) == 1


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    size: float


class Square(BaseModel):
    kind: Literal["square"] = "square"
    size: float


class Reading(BaseModel):
    shape: Circle | Square
    total: Annotated[Decimal, Field(ge=0, decimal_places=2)]
    taken: NaiveDatetime
    device: UUID4
    address: IPvAnyAddress
    image: Base64Bytes
    code: str = Field(alias="v1.0 größe")


def test_the_types_of_pydantic_land_from_a_server_that_follows_the_schema(warehouse: Path) -> None:
    columns = {name: name for name in ("total", "taken", "device", "address", "image")}
    land = {"columns": {**columns, "kind": "shape.kind", "code": "v1.0 größe"}}
    result = run_job(output_schema=Reading, wait={"max_attempts": 1}, land=land)

    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    for taken, address, image, kind in query(warehouse, "SELECT taken, address, image, kind FROM answers"):
        assert (taken, address, image) == ("2026-01-01T00:00:00.000000", "127.0.0.1", b"offline")
        assert kind in ("circle", "square")


def test_a_pattern_with_a_lookahead_is_checked_after_the_answer_arrives(warehouse: Path) -> None:
    def schema(*values: str) -> dict[str, Any]:
        number = {"type": "string", "enum": [*values], "pattern": r"^(?!0)\d+$"}
        return {"type": "object", "properties": {"number": number, "nickname": {"type": "null"}}}

    result = run_job(output_schema=schema("12", "34"), land={"columns": ["number", "nickname"]})

    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    assert query(warehouse, "SELECT DISTINCT number LIKE '__', nickname FROM answers") == [(1, None)]

    result = run_job(output_schema=schema("012", "034"), canary=0, wait={"max_attempts": 1}, land={"table": "wrong"})

    assert result.return_values["land"]["outcomes"] == {"invalid_output": 5}
