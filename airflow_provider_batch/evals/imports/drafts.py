"""The tests of a file become cases, or reasons why they do not.

Ids are stable, so that importing a file again updates its cases and never doubles them: the id of the source or, where
it has none, a name and a hash of the input. A changed expected value then changes the case, and a changed input makes a
new one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.evals.graders import JUDGED, check_grader, kind_of
from airflow_provider_batch.exceptions import InputError

#: number of hexadecimal digits in the id of a case whose source has none
_HASH_DIGITS = 12
_REPEAT_SUFFIX = re.compile(r"~\d+\Z")


class GraderSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One grader of a case, as the column `grader` writes it in a list."""

    grader: str
    expected: str | None = None
    weight: float = 1

    @property
    def is_judged(self) -> bool:
        """Whether a judge decides."""
        return kind_of(self.grader) in JUDGED


class Draft(msgspec.Struct, frozen=True):
    """A test of the source that became a case, before its id is final."""

    #: file and line or number of the test, for messages
    place: str
    input: str
    expected: str | None
    grader: str
    #: start of the id if the source has none
    name: str
    #: the source's own id, if there is one
    source_id: str = ""
    tags: tuple[str, ...] = ()


class Skipped(msgspec.Struct, frozen=True):
    """A test, or a whole eval, that was not imported."""

    place: str
    reason: str


class ImportedCase(msgspec.Struct, frozen=True):
    """A row of the table `eval_cases`."""

    case_id: str
    input: str
    expected: str | None
    grader: str
    tags: str


@dataclass
class Imported:
    """The result of reading a file."""

    cases: list[ImportedCase] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    #: what differs between the source and the imported cases, for a person
    notes: list[str] = field(default_factory=list)


def build_cases(items: Iterable[Draft | Skipped], notes: Iterable[str] = ()) -> Imported:
    """Return the cases of these drafts with their final ids, and everything that could not be imported."""
    imported = Imported(notes=list(notes))
    drafts: list[Draft] = []
    for item in items:
        problem = "" if isinstance(item, Skipped) else _problem(item)
        if isinstance(item, Skipped):
            imported.skipped.append(item)
        elif problem:
            imported.skipped.append(Skipped(item.place, problem))
        else:
            drafts.append(item)
    by_id: dict[str, list[Draft]] = defaultdict(list)
    for draft, case_id in zip(drafts, _ids(drafts), strict=True):
        by_id[case_id].append(draft)
    repeated = 0
    for case_id, group in by_id.items():
        rows = {_row(case_id, draft): draft for draft in group}
        if len(rows) == 1:
            imported.cases.extend(rows)
            repeated += len(group) - 1
        else:
            reason = f"the id {case_id!r} is used by {len(group)} different tests"
            imported.skipped += [Skipped(draft.place, reason) for draft in group]
    if repeated:
        imported.notes.append(f"{format_count(repeated, 'test')} left out, because another one is the same.")
    return imported


def encode_graders(specs: Sequence[GraderSpec], threshold: float | None = None) -> tuple[str | None, str]:
    """Return the columns `expected` and `grader` for these graders, all of which must pass.

    :param threshold: minimum of the weighted mean of the scores, instead of all passing.
    """
    if len(specs) == 1 and threshold is None:
        return specs[0].expected, specs[0].grader
    # a judge reads the expected value of the case
    expected = next((spec.expected for spec in specs if spec.is_judged), None)
    parts: list[Any] = [
        msgspec.to_builtins(msgspec.structs.replace(spec, expected=None) if spec.is_judged else spec) for spec in specs
    ]
    if threshold is not None:
        parts.append({"threshold": threshold})
    return expected, json.dumps(parts, ensure_ascii=False)


def tag_names(*values: Any) -> tuple[str, ...]:
    """Return names of tags from texts separated by commas and from lists. A comma inside a listed name is replaced."""
    names: list[str] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            names += [str(item).replace(",", ";").strip() for item in value]
        elif value is not None:
            names += [name.strip() for name in str(value).split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def _row(case_id: str, draft: Draft) -> ImportedCase:
    return ImportedCase(case_id, draft.input, draft.expected, draft.grader, ",".join(draft.tags))


def _ids(drafts: Sequence[Draft]) -> list[str]:
    """Return the id of each draft. Tests of one input that differ otherwise get the hash of everything."""
    keys = [(draft.name, draft.input) for draft in drafts]
    variants = {(draft.name, draft.input, draft.expected, draft.grader) for draft in drafts if not draft.source_id}
    counts = Counter((name, text) for name, text, _, _ in variants)
    ids = []
    for draft, key in zip(drafts, keys, strict=True):
        parts = [draft.input] if counts[key] < 2 else [draft.input, draft.expected, draft.grader]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_HASH_DIGITS]
        ids.append(draft.source_id or f"{draft.name}-{digest}")
    return ids


def _problem(draft: Draft) -> str:
    """Return why a draft cannot be a case, or nothing."""
    if not draft.input.strip():
        return "the input is empty"
    for text in (draft.source_id, draft.input, draft.expected or "", draft.grader, *draft.tags):
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            return "it contains a NUL character or half of a surrogate pair, which no database can hold"
    if _REPEAT_SUFFIX.search(draft.source_id):
        return f"the id {draft.source_id!r} ends with ~ and a number, which marks repeats"
    try:
        check_grader(draft.grader, draft.expected)
    except InputError as error:
        return str(error)
    return ""
