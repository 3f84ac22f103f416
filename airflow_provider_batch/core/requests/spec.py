"""The row arguments of a job, as its author wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

#: names that a row template can use besides `row`; a run without a logical date lacks the dates
CONTEXT_NAMES = (
    *("params", "run_id", "dag_run"),
    *("ds", "ds_nodash", "ts", "logical_date", "data_interval_start", "data_interval_end"),
)


class RequestSpec(msgspec.Struct, frozen=True):
    """The row arguments of the submit operator, resolved by Airflow but not yet rendered.

    A row template is a string with Jinja in it; `core.requests.template` describes what it may contain.
    """

    #: path of the endpoint, such as "/v1/responses"
    endpoint: str = "/v1/chat/completions"
    #: row template; required
    custom_id: Any = None
    #: row template; if None, the model comes from `body` or from the result of `request`
    model: Any = None
    #: row template; a row for which it renders to blank text is sent without a system message
    system: Any = None
    #: row template, or a list of content parts that contain templates (chat, responses, moderations), or a list of row
    #: templates, one per input (embeddings, moderations)
    prompt: Any = None
    #: row template for the path of a file that is added to the user message, a list of them, or dicts with the `path`
    #: and the `detail` of a file
    files: Any = None
    #: address of the folder below which the files are; by default, the literal beginning of the templates
    files_root: str | None = None
    #: dict whose values may contain row templates at any depth
    body: Any = None
    #: function that maps the row, as a dict, to the request body; or its import path `package.module:function`
    request: Callable[[dict[str, Any]], Mapping[str, Any]] | str | None = None
    #: strict JSON Schema of the answer, as every request contains it
    output_schema: dict[str, Any] | None = None
    #: JSON Schema of the answer as its author means it; `output_schema` is made from it
    author_schema: dict[str, Any] | None = None
    #: maximum number of output tokens per answer
    max_output_tokens: int | None = None
