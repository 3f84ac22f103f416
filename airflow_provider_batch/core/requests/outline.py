"""Measures what all requests built from one form have in common, once instead of once per row.

`estimate_request` (in `core.tokens`) and `answer_size.expected_bytes` measure a request by parsing its body. In most
jobs, a row only inserts text into the prompt, and everything else that these functions read is the same in every
request. An outline measures that part once and adds the texts of each row. The results are the same as those of the two
functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.requests import answer_size
from airflow_provider_batch.core.requests.body_form import Form
from airflow_provider_batch.core.tokens.estimate import encoding_of, estimate_tokens
from airflow_provider_batch.core.tokens.media import Media, media_tokens
from airflow_provider_batch.core.tokens.request import RAW_KEYS, RequestTokens, estimate_request


class Common(NamedTuple):
    """What all requests of a form to a model have in common."""

    #: the request without its leaves
    request: RequestTokens
    #: size of the body without its leaves
    body_bytes: int
    #: indexes of the leaves that are texts of the prompt
    text_indexes: list[int]
    #: images, sounds and files with markers in place of the leaves
    media_forms: list[Media]
    #: index of the leaf for each marker
    indexes: dict[str, int]

    def count_characters(self, leaf_values: Sequence[Any]) -> int:
        """Return the number of characters in the texts of a row; 0 if any is not a text."""
        characters = 0
        for index in self.text_indexes:
            text = leaf_values[index]
            if type(text) is not str:
                return 0
            characters += len(text)
        return characters

    def with_text_tokens(self, tokens: int) -> RequestTokens:
        """Return a request with this many tokens of text in its leaves."""
        request = self.request
        return RequestTokens(
            request.input_tokens + tokens,
            request.texts,
            request.text_tokens + tokens,
            request.media,
            request.cap,
            request.choices,
        )


class Outline:
    """Measures the requests of a form from the values of their leaves."""

    def __init__(self, endpoint: str, form: Form) -> None:
        self._endpoint = endpoint
        self._form = form
        #: True if the rows do not affect the keys that `estimate_request` reads apart from the prompt
        self._has_constant_limits = not form.row_keys & RAW_KEYS
        #: True if the rows do not affect the keys that `expected_bytes` reads
        self._has_constant_answer = not form.row_keys & answer_size.keys_read(endpoint)
        self._commons: dict[str, Common] = {}
        self._answer_bytes: dict[int, int] = {}

    def estimate(self, leaf_values: Sequence[Any], model: str) -> RequestTokens | None:
        """Return what `estimate_request` returns for the body with these leaf values; the order may differ.

        Returns None if the leaf values are not enough and the body has to be parsed.
        """
        if not self._has_constant_limits:
            return None
        common = self._common(model)
        encoding = encoding_of(model)
        texts = [leaf_values[index] for index in common.text_indexes]
        text_tokens = 0
        for text in texts:
            if type(text) is not str:
                return None
            text_tokens += estimate_tokens(text, encoding)
        tokens = text_tokens
        media = []
        for form in common.media_forms:
            part = form._replace(**{name: leaf_values[index] for name, index in _leaf_fields(form, common.indexes)})
            if not all(type(getattr(part, name)) is str for name, _ in _leaf_fields(form, common.indexes)):
                return None
            tokens += media_tokens(part, model, encoding)
            media.append(part)
        request = common.request
        return RequestTokens(
            input_tokens=request.input_tokens + tokens,
            texts=(*request.texts, *texts),
            text_tokens=request.text_tokens + text_tokens,
            media=(*request.media, *media),
            cap=request.cap,
            choices=request.choices,
        )

    def common(self, model: str) -> Common | None:
        """Return what all requests have in common; None if they differ in more than the texts of the prompt."""
        if not self._has_constant_limits:
            return None
        common = self._common(model)
        return None if common.media_forms or common.request.media else common

    def _common(self, model: str) -> Common:
        common = self._commons.get(model)
        if common is None:
            common = self._commons[model] = self._measure_common(model)
        return common

    def answer_bytes(self, line: bytes, inputs: int) -> int:
        """Return what `expected_bytes` returns for a line of an input file."""
        if not self._has_constant_answer:
            return answer_size.expected_bytes(self._endpoint, line, inputs)
        size = self._answer_bytes.get(inputs)
        if size is None:
            size = self._answer_bytes[inputs] = answer_size.expected_bytes(self._endpoint, line, inputs)
        return size

    def _measure_common(self, model: str) -> Common:
        body, markers = self._form.fill_with_markers()
        request = estimate_request(body, model)
        encoding = encoding_of(model)
        indexes = {marker: index for index, marker in enumerate(markers)}
        texts = tuple(text for text in request.texts if text not in indexes)
        text_tokens = sum(estimate_tokens(text, encoding) for text in texts)
        media_forms = [part for part in request.media if _leaf_fields(part, indexes)]
        # Without the markers: the texts and the media in which they stand are added for each row.
        other_tokens = request.input_tokens - request.text_tokens
        other_tokens -= sum(media_tokens(part, model, encoding) for part in media_forms)
        return Common(
            msgspec.structs.replace(
                request,
                input_tokens=other_tokens + text_tokens,
                texts=texts,
                text_tokens=text_tokens,
                media=tuple(part for part in request.media if part not in media_forms),
            ),
            self._form.body_bytes,
            [index for index, text in enumerate(markers) if text in request.texts],
            media_forms,
            indexes,
        )


def _leaf_fields(part: Media, indexes: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the fields of a part that stand for a leaf, with the index of the leaf."""
    fields = part._asdict().items()
    return [(name, indexes[value]) for name, value in fields if isinstance(value, str) and value in indexes]
