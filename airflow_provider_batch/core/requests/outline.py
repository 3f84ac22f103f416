"""What all requests of one form have in common, so that nobody has to read their bodies again.

`tokens.read_ask` and `expected.expected_bytes` read a request from its bytes. In most jobs a row fills nothing but text
into the prompt, and whatever else the two would find is the same in every request: it is read once, and a row adds its
own texts. The numbers are those that the two find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_batch.core.requests import answer_size
from airflow_provider_batch.core.requests.body_form import Form
from airflow_provider_batch.core.tokens import estimate
from airflow_provider_batch.core.tokens.estimate import Ask, Encoding, estimate_tokens


class Outline:
    """The requests of one form."""

    def __init__(self, endpoint: str, form: Form) -> None:
        self._endpoint = endpoint
        self._form = form
        self._same_limits = not form.filled_keys & estimate.WHOLE_KEYS
        self._same_answer = not form.filled_keys & answer_size.keys_read(endpoint)
        self._asks: dict[Encoding, tuple[Ask, list[int]]] = {}
        self._answers: dict[int, int] = {}

    def ask(self, given: Sequence[Any], encoding: Encoding) -> Ask | None:
        """What `read_ask` gives for a body, from the values of its leaves; the order of the texts may differ.

        None if it cannot be told from these values: the body has to be read.
        """
        if not self._same_limits:
            return None
        common, counted = self._asks.get(encoding) or self._common(encoding)
        texts = [given[index] for index in counted]
        own = 0
        for text in texts:
            if type(text) is not str:
                return None
            own += estimate_tokens(text, encoding)
        return Ask(
            common.input_tokens + own, (*common.texts, *texts), common.text_tokens + own, common.cap, common.choices
        )

    def answer_bytes(self, line: bytes, inputs: int) -> int:
        """What `expected_bytes` gives for a line of an input file."""
        if not self._same_answer:
            return answer_size.expected_bytes(self._endpoint, line, inputs)
        known = self._answers.get(inputs)
        if known is None:
            known = self._answers[inputs] = answer_size.expected_bytes(self._endpoint, line, inputs)
        return known

    def _common(self, encoding: Encoding) -> tuple[Ask, list[int]]:
        """What is asked apart from the leaves; and which of the leaves are texts of the prompt."""
        body, marks = self._form.marked()
        marked = estimate.read_ask(body, encoding)
        texts = tuple(text for text in marked.texts if text not in marks)
        tokens_of_texts = sum(estimate_tokens(text, encoding) for text in texts)
        other = marked.input_tokens - marked.text_tokens
        common = Ask(other + tokens_of_texts, texts, tokens_of_texts, marked.cap, marked.choices)
        self._asks[encoding] = common, [index for index, text in enumerate(marks) if text in marked.texts]
        return self._asks[encoding]
