"""What a job asks of every row, as it was written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class RequestSpec(msgspec.Struct, frozen=True):
    """The row arguments of the submit operator, resolved but not rendered.

    A row template is text with Jinja in it; see `core.requests.template` for what it means.
    """

    #: the path of the endpoint
    endpoint: str = "/v1/chat/completions"
    #: row template; required
    custom_id: Any = None
    #: row template; else from `body` or from what `request` returns
    model: Any = None
    #: row template; a row for which it is blank is asked without it
    system: Any = None
    #: row template; or a list of content parts with templates in them (chat, responses, moderations); or a
    #: list of row templates, one per input (embeddings, moderations)
    prompt: Any = None
    #: a dict with row templates at any depth of its values
    body: Any = None
    #: a function, or its import path `package.module:function`: dict of the row -> body
    request: Callable[[dict[str, Any]], Mapping[str, Any]] | str | None = None
    #: strict JSON Schema of the answer, without templates
    output_schema: dict[str, Any] | None = None
    #: the cap on the answer's tokens
    max_output_tokens: int | None = None
