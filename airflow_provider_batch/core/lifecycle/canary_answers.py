"""What the canary's answers say about the requests that have not been sent.

An answer is usable, or it shows a problem that the other requests have too, or it says nothing about them:

    usable    succeeded
    shared    incomplete, refused, invalid_output; a request that the provider refuses for good; HTTP 500 and the like
    silent    a busy server (408, 409, 429, 503), no response; a refusal that concerns the content of one row

A model stops the job if no answer is usable and at least one shows a shared problem: the other requests would be paid
for, or retried, without success. One usable answer is enough to continue. If nothing remains to be sent to the model,
answers that were paid for land as they are. Requests that were refused for good cost nothing, and then an error says
more than rows that failed, unless the rest of the job is for other models.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.caps import is_cut_off
from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.formatting import format_count

#: error codes and phrases of refusals that concern the content of one row, and not what all rows have in common
_CODES_OF_A_ROW = frozenset(
    {
        "context_length_exceeded",
        "string_above_max_length",
        "content_filter",
        "content_policy_violation",
        "invalid_prompt",
        "invalid_image_url",
        "invalid_image",
        "image_parse_error",
    }
)
_WORDS_OF_A_ROW = (
    "context length",
    "context window",
    "content management policy",
    "content policy",
    "usage policy",
    "safety system",
    "string too long",
    "error while downloading",
)
#: statuses of a server that is busy, or did not respond
_BUSY_STATUSES = frozenset({0, 408, 409, 425, 429, 503, 529})
_WORDS_OF_A_BUSY_SERVER = ("rate_limit", "overloaded")

#: maximum number of custom_ids, of messages and of models in an error, and of characters of a message
_MAX_IDS, _MAX_MESSAGES, _MAX_MODELS, _MAX_CHARACTERS = 5, 3, 3, 300


#: error code of an embedding that does not fit into the results table
DIMENSIONS = "dimensions"


class Sign(Enum):
    """What an answer says about other requests to the same model."""

    USABLE = auto()
    SHARED = auto()
    SILENT = auto()


class ModelCanary(NamedTuple):
    """The canary of one model."""

    model: str
    #: custom_id and answer of each request
    answers: list[tuple[str, Answer]]
    #: number of requests to the model that have not been sent
    unsent: int
    #: whether the job has other requests to the model, sent or not, or no other requests at all
    stops_if_refused: bool
    #: address of the file with the answers
    file: str

    @property
    def stops_job(self) -> bool:
        """Whether the other requests must not be sent, judging by these answers."""
        signs = {sign_of(answer) for _, answer in self.answers}
        if Sign.USABLE in signs or Sign.SHARED not in signs:
            return False
        return self.unsent > 0 or (
            self.stops_if_refused and all(_is_refused_for_good(answer) for _, answer in self.answers)
        )

    @property
    def may_pass(self) -> bool:
        """Whether the same requests may succeed later: the server failed on every one of them."""
        return all(answer.outcome is Outcome.FAILED and answer.transient for _, answer in self.answers)


def check_dimensions(answer: Answer, table_dimensions: list[int]) -> Answer:
    """Return the answer, as invalid output if it is an embedding of a length that a results table does not take."""
    if not table_dimensions or answer.outcome is not Outcome.SUCCEEDED or not isinstance(answer.value, list):
        return answer
    unfit = [dimensions for dimensions in table_dimensions if dimensions != len(answer.value)]
    if not unfit:
        return answer
    return msgspec.structs.replace(
        answer,
        outcome=Outcome.INVALID_OUTPUT,
        error_code=DIMENSIONS,
        error_message=f"The embedding has {len(answer.value):,} elements, but the results table takes {unfit[0]:,}",
    )


def sign_of(answer: Answer) -> Sign:
    """Return what an answer says about other requests to the same model."""
    match answer.outcome:
        case Outcome.SUCCEEDED:
            return Sign.USABLE
        case Outcome.INCOMPLETE | Outcome.REFUSED | Outcome.INVALID_OUTPUT:
            return Sign.SHARED
        case Outcome.FAILED if answer.transient:
            is_busy = any(words in (answer.error_code or "") for words in _WORDS_OF_A_BUSY_SERVER)
            return Sign.SILENT if is_busy or answer.status in _BUSY_STATUSES else Sign.SHARED
        case Outcome.FAILED:
            return Sign.SILENT if _concerns_one_row(answer) else Sign.SHARED
    return Sign.SILENT


def _concerns_one_row(answer: Answer) -> bool:
    message = (answer.error_message or "").lower()
    return answer.error_code in _CODES_OF_A_ROW or any(words in message for words in _WORDS_OF_A_ROW)


def _is_refused_for_good(answer: Answer) -> bool:
    return answer.outcome is Outcome.FAILED and not answer.transient and not _concerns_one_row(answer)


def describe_stop(canaries: list[ModelCanary], cost: str) -> str:
    """Return the error for the models that stop the job: what came back, what was kept, and what to do."""
    parts = [_describe_canary(canary) for canary in canaries[:_MAX_MODELS]]
    advice = dict.fromkeys(line for canary in canaries for line in _advice(canary))
    return (
        f"{' '.join(parts)} Nothing was uploaded, because the other requests would probably end the same way. {cost} "
        f"{' '.join(advice)} Then clear this task: it reads and renders the rows again. To send all requests in spite "
        "of these answers, set ignore_canary=True."
    )


def _describe_canary(canary: ModelCanary) -> str:
    requests = format_count(len(canary.answers), "request")
    ids = ", ".join(repr(custom_id) for custom_id, _ in canary.answers[:_MAX_IDS])
    more = f" and {len(canary.answers) - _MAX_IDS} more" if len(canary.answers) > _MAX_IDS else ""
    answers = [answer for _, answer in canary.answers]
    return (
        f"The canary of {canary.model} ({requests} sent before all others) got no usable answer: "
        f"{count_outcomes(answers)} (custom_id {ids}{more}). {first_messages(answers)} The answers are kept in "
        f"{canary.file}."
    )


def count_outcomes(answers: list[Answer]) -> str:
    """Return the number of answers by outcome, such as "1 succeeded, 2 refused"."""
    counts = Counter(answer.outcome for answer in answers)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])


def first_messages(answers: list[Answer]) -> str:
    """Return the first distinct messages of answers that are not usable, each as a sentence."""
    messages = dict.fromkeys(
        f"{answer.error_code}: {(answer.error_message or 'no message')[:_MAX_CHARACTERS].rstrip('.')}."
        for answer in answers
        if answer.outcome is not Outcome.SUCCEEDED
    )
    return " ".join(list(messages)[:_MAX_MESSAGES])


def _advice(canary: ModelCanary) -> list[str]:
    """Return what to do about the answers, in full sentences."""
    answers = [answer for _, answer in canary.answers]
    outcomes = {answer.outcome for answer in answers}
    lines = []
    if any(map(is_cut_off, answers)):
        lines.append(
            "Raise max_output_tokens (or the cap in the body), or ask for shorter answers. Reasoning tokens "
            "count against the cap, so a small cap leaves no tokens for the answer; a lower reasoning effort also "
            "helps. If the sensor raises the cap (on_incomplete='raise_cap'), set ignore_canary=True."
        )
    if any(answer.outcome is Outcome.INCOMPLETE and not is_cut_off(answer) for answer in answers):
        lines.append("Check with one request by hand why the model writes nothing.")
    if Outcome.REFUSED in outcomes:
        lines.append("Change the prompt or the system message, or use another model.")
    if any(answer.error_code == DIMENSIONS for answer in answers):
        lines.append("Change the column `output` of the results table, or set `dimensions` in the body.")
    elif Outcome.INVALID_OUTPUT in outcomes:
        lines.append(
            "Compare the answers with output_schema. If the server does not enforce schemas, describe the expected "
            "JSON in the prompt, or loosen the schema."
        )
    if any(answer.outcome is Outcome.FAILED and not answer.transient for answer in answers):
        lines.append(
            "Fix what the message names (the model, body, output_schema or endpoint). If the server answers only "
            "batches, set canary=0."
        )
    if any(answer.outcome is Outcome.FAILED and answer.transient for answer in answers):
        lines.append(
            "If the server is down, run this task again later. If it answers other requests, remove parts of the "
            "request (the schema, tools, parameters) until it succeeds: some servers answer HTTP 500 to what they do "
            "not support."
        )
    return lines
