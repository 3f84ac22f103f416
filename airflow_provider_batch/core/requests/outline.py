"""Measures what all requests built from one form have in common, once instead of once per row.

`estimate_request` (in `core.tokens`) and `answer_size.expected_bytes` measure a request by parsing its body. In most
jobs, a row only inserts text into the prompt, and everything else that these functions read is the same in every
request. An outline measures that part once and adds the texts of each row. The results are the same as those of the two
functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_batch.core.requests import answer_size
from airflow_provider_batch.core.requests.body_form import Form
from airflow_provider_batch.core.tokens import estimate
from airflow_provider_batch.core.tokens.estimate import Encoding, RequestTokens, estimate_tokens


class Outline:
    """Measures the requests of a form from the values of their leaves."""

    def __init__(self, endpoint: str, form: Form) -> None:
        self._endpoint = endpoint
        self._form = form
        #: True if the rows do not affect the keys that `estimate_request` reads apart from the prompt
        self._has_constant_limits = not form.row_keys & estimate.RAW_KEYS
        #: True if the rows do not affect the keys that `expected_bytes` reads
        self._has_constant_answer = not form.row_keys & answer_size.keys_read(endpoint)
        self._common_tokens: dict[Encoding, tuple[RequestTokens, list[int]]] = {}
        self._answer_bytes: dict[int, int] = {}

    def estimate(self, leaf_values: Sequence[Any], encoding: Encoding) -> RequestTokens | None:
        """Return what `estimate_request` returns for the body with these leaf values; the order of texts may differ.

        Returns None if the leaf values are not enough and the body has to be parsed.
        """
        if not self._has_constant_limits:
            return None
        common, text_indexes = self._common_tokens.get(encoding) or self._measure_common(encoding)
        texts = [leaf_values[index] for index in text_indexes]
        tokens = 0
        for text in texts:
            if type(text) is not str:
                return None
            tokens += estimate_tokens(text, encoding)
        return RequestTokens(
            common.input_tokens + tokens,
            (*common.texts, *texts),
            common.text_tokens + tokens,
            common.cap,
            common.choices,
        )

    def answer_bytes(self, line: bytes, inputs: int) -> int:
        """Return what `expected_bytes` returns for a line of an input file."""
        if not self._has_constant_answer:
            return answer_size.expected_bytes(self._endpoint, line, inputs)
        size = self._answer_bytes.get(inputs)
        if size is None:
            size = self._answer_bytes[inputs] = answer_size.expected_bytes(self._endpoint, line, inputs)
        return size

    def _measure_common(self, encoding: Encoding) -> tuple[RequestTokens, list[int]]:
        """Return the tokens of a request without its leaves, and the indexes of the leaves that are prompt texts."""
        body, markers = self._form.fill_with_markers()
        request = estimate.estimate_request(body, encoding)
        texts = tuple(text for text in request.texts if text not in markers)
        text_tokens = sum(estimate_tokens(text, encoding) for text in texts)
        other_tokens = request.input_tokens - request.text_tokens
        common = RequestTokens(other_tokens + text_tokens, texts, text_tokens, request.cap, request.choices)
        self._common_tokens[encoding] = (
            common,
            [index for index, text in enumerate(markers) if text in request.texts],
        )
        return self._common_tokens[encoding]
