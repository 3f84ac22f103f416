"""OpenAI's published schemas as a judge over what the local server answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import yaml

_DOCUMENT = yaml.safe_load((Path(__file__).parent / "openapi_batch.yaml").read_text(encoding="utf-8"))


def assert_fits(value: dict[str, Any], name: str) -> None:
    """Fail unless the value is valid against the schema of this name.

    Optional properties may be null: the schemas declare none of them nullable, but the published samples of the
    same document have null in every one that is not set.
    """
    schema = _DOCUMENT["components"]["schemas"][name]
    required = schema.get("required", [])
    kept = {key: inner for key, inner in value.items() if inner is not None or key in required}
    unknown = set(kept) - set(schema["properties"])
    assert not unknown, f"{name} has no {unknown}"
    if name in ("ListBatchesResponse", "ListFilesResponse"):
        for item in kept.pop("data"):
            assert_fits(item, "Batch" if name == "ListBatchesResponse" else "OpenAIFile")
        kept["data"] = []
    jsonschema.validate(kept, {**_DOCUMENT, "$ref": f"#/components/schemas/{name}"})
