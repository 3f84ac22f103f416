"""OpenAI evals: a YAML file of the registry with its samples, or a file of samples with the class of the eval.

    registry/evals/countries.yaml           countries.dev.v0: {class: evals.elsuite.basic.match:Match, args: …}
    registry/data/countries/samples.jsonl   {"input": [{"role": "user", "content": "…"}], "ideal": "…"}

| class | a sample is right if | our grader |
|---|---|---|
| `Match` | the answer starts with an `ideal` | `starts-with`; for several, `regex` |
| `Includes` | the answer contains an `ideal` | `contains`, `contains-any`, `icontains`, `icontains-any` |
| `JsonMatch` | the answer is JSON and equals `ideal` | `json` |
| `ModelBasedClassify` with `fact` or `closedqa` | a model says so | `judge` |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.evals.graders import JUDGED, kind_of
from airflow_provider_batch.evals.imports.drafts import Draft, Imported, Skipped, build_cases, tag_names
from airflow_provider_batch.evals.imports.messages import NotImportableError, flatten
from airflow_provider_batch.evals.imports.reading import read_json_lines
from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED, ImportFiles, ImportOptions
from airflow_provider_batch.evals.imports.values import is_true
from airflow_provider_batch.evals.imports.yaml_values import read_yaml
from airflow_provider_batch.exceptions import InputError

#: arguments of the classes that change neither the question nor the grade
_HARMLESS_ARGUMENTS = frozenset({"samples_jsonl", "max_tokens", "eval_type", "sample_kwargs", "eval_kwargs"})

_JUDGE_NOTE = (
    "{count} graded by the judge of your DAG, whose prompt is not the one of the eval. Only the expected answer or the "
    "criterion was imported."
)


def read_openai(files: ImportFiles, options: ImportOptions) -> Imported:
    """Import a file of the registry (.yaml) or a file of samples (.jsonl)."""
    if options.columns:
        raise InputError("columns: The format openai has fixed names. Use the format jsonl for other files.")
    if not files.address.endswith((".yaml", ".yml")):
        specs: list[_Eval | Skipped] = [_Eval(options.name, options.scorer, dict(options.scorer_options), None)]
        if not options.scorer and not options.grader:
            raise InputError(
                f"{files.address} has samples, but not how to grade them. Name the class of the eval with the option "
                f"`scorer` ({', '.join(_GRADERS)}), or one of our graders with the option `grader`. {NOTHING_IMPORTED}"
            )
    else:
        specs = list(_registry(files, options))
    items = [item for spec in specs for item in _samples(spec, files, options)]
    judged = sum(isinstance(item, Draft) and kind_of(item.grader) in JUDGED for item in items)
    notes = [_JUDGE_NOTE.format(count=format_count(judged, "case is", "cases are"))] if judged else []
    return build_cases(items, notes)


class _Eval:
    """An eval of the registry, or a file of samples."""

    def __init__(self, name: str, class_name: str, arguments: dict[str, Any], samples: str | None) -> None:
        """Store the arguments. `samples` is None for the imported file itself."""
        self.name, self.class_name, self.arguments, self.samples = name, class_name, arguments, samples


def _registry(files: ImportFiles, options: ImportOptions) -> Iterator[_Eval | Skipped]:
    place = files.address.rpartition("/")[2]
    document = read_yaml(files.read(), place)
    specs = {
        str(name): spec
        for name, spec in (document.items() if isinstance(document, Mapping) else ())
        if isinstance(spec, Mapping) and "class" in spec
    }
    if not specs:
        raise InputError(f"{place} has no eval with a `class`. {NOTHING_IMPORTED}")
    short_names = [name.partition(".")[0] for name in specs]
    for full_name, spec in specs.items():
        short_name = full_name.partition(".")[0]
        name = short_name if short_names.count(short_name) == 1 else full_name
        if len(specs) == 1 and options.name:
            name = options.name if options.name != place.partition(".")[0] else name
        arguments = spec.get("args") or {}
        samples = arguments.get("samples_jsonl") if isinstance(arguments, Mapping) else None
        if not isinstance(samples, str):
            yield Skipped(f"{place}, {full_name}", "it names no file of samples (samples_jsonl)")
        else:
            yield _Eval(name, str(spec["class"]).rpartition(":")[2], dict(arguments), samples)


def _samples(spec: _Eval | Skipped, files: ImportFiles, options: ImportOptions) -> Iterator[Draft | Skipped]:
    """Yield a draft, or the reason why there is none, for each sample of an eval."""
    if isinstance(spec, Skipped):
        yield spec
        return
    place = spec.samples or files.address.rpartition("/")[2]
    grading = SampleGrading(spec.class_name, spec.arguments, options.grader)
    problem = grading.problem()
    if problem:
        yield Skipped(f"eval {spec.name}", problem)
        return
    examples = _few_shot(spec, files)
    data = files.read() if spec.samples is None else _read_data(files, spec.samples)
    for number, sample in read_json_lines(data, place):
        if examples and isinstance(sample.get("input"), list):
            messages = sample["input"]
            sample = {**sample, "input": [*messages[:-1], *examples, *messages[-1:]]}
        yield draft_of_sample(f"{place}, line {number:,}", sample, spec.name, grading, transcript=options.transcript)


class SampleGrading(NamedTuple):
    """How the samples of an eval are graded."""

    class_name: str
    arguments: Mapping[str, Any]
    #: a grader of ours, instead of the one for the class
    grader: str = ""

    def problem(self) -> str:
        """Return why no sample of the eval can be imported, or nothing."""
        if self.grader:
            return ""
        if self.class_name not in _GRADERS:
            return f"there is no grader for the class {self.class_name}. Choose one of ours with the option `grader`"
        unknown = set(self.arguments) - _HARMLESS_ARGUMENTS - _KNOWN_ARGUMENTS.get(self.class_name, frozenset())
        return f"the argument {min(unknown)!r} of {self.class_name} cannot be imported" if unknown else ""

    def columns(self, sample: Mapping[str, Any]) -> tuple[str | None, str]:
        """Return the columns `expected` and `grader` of a sample.

        :raises NotImportableError: if no grader does the same.
        """
        if not self.grader:
            return _GRADERS[self.class_name](sample, self.arguments)
        ideals = _ideals(sample)
        return (ideals[0] if len(ideals) == 1 else json.dumps(ideals, ensure_ascii=False)), self.grader


def draft_of_sample(
    place: str, sample: Mapping[str, Any], name: str, grading: SampleGrading, *, transcript: bool = False
) -> Draft | Skipped:
    """Return the draft of a sample, or the reason why there is none."""
    try:
        expected, grader = grading.columns(sample)
        question = flatten(sample.get("input"), transcript=transcript)
    except NotImportableError as error:
        return Skipped(place, str(error))
    return Draft(place=place, input=question, expected=expected, grader=grader, name=name, tags=tag_names([name]))


def _read_data(files: ImportFiles, path: str) -> bytes:
    """Return a file of the registry's data, which is beside the folder of the YAML file, or else below that folder."""
    return files.read(path, ("../data", ""))


def _few_shot(spec: _Eval, files: ImportFiles) -> list[Any]:
    """Return the messages of the examples that are sent before each question."""
    count = int(spec.arguments.get("num_few_shot") or 0)
    if not count:
        return []
    path = str(spec.arguments.get("few_shot_jsonl", ""))
    examples = list(read_json_lines(_read_data(files, path), path))[:count]
    return [message for _, example in examples for message in example.get("sample") or []]


Grading = Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[str | None, str]]


def _match(sample: Mapping[str, Any], _: Mapping[str, Any]) -> tuple[str | None, str]:
    ideals = _ideals(sample)
    if len(ideals) == 1:
        return ideals[0], "starts-with"
    return r"\A(?:" + "|".join(map(re.escape, ideals)) + ")", "regex"


def _includes(sample: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[str | None, str]:
    ideals = _ideals(sample)
    letter = "i" if is_true(arguments.get("ignore_case", False)) else ""
    if len(ideals) == 1:
        return ideals[0], f"{letter}contains"
    return json.dumps(ideals, ensure_ascii=False), f"{letter}contains-any"


def _json_match(sample: Mapping[str, Any], _: Mapping[str, Any]) -> tuple[str | None, str]:
    ideals = _ideals(sample)
    if len(ideals) > 1:
        raise NotImportableError("it accepts several JSON documents, and the grader json compares with one")
    try:
        json.loads(ideals[0])
    except (ValueError, RecursionError):
        raise NotImportableError("its ideal answer is not JSON, so every answer would be wrong") from None
    return ideals[0], "json"


def _model_based(sample: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[str | None, str]:
    kind = str(arguments.get("modelgraded_spec"))
    if arguments.get("metaeval") or "completion" in sample:
        raise NotImportableError("it grades an answer that the sample contains, to test a judge")
    if kind == "fact":
        ideals = _ideals(sample)
        return (ideals[0] if len(ideals) == 1 else "One of: " + "\n".join(ideals)), "factuality"
    if kind == "closedqa":
        fixed = arguments.get("modelgraded_spec_args") or {}
        criteria = sample.get("criteria", fixed.get("criteria") if isinstance(fixed, Mapping) else None)
        if isinstance(criteria, Mapping) and len(criteria) == 1:
            (criteria,) = criteria.values()
        if not isinstance(criteria, str) or not criteria.strip():
            raise NotImportableError("it has no criteria for the judge")
        return criteria, "llm-rubric"
    raise NotImportableError(f"there is no judge for the model-graded spec {kind!r}")


def _ideals(sample: Mapping[str, Any]) -> list[str]:
    value = sample.get("ideal")
    ideals = value if isinstance(value, list) else [value]
    if not ideals or not all(isinstance(ideal, str) for ideal in ideals):
        raise NotImportableError(f"its `ideal` is neither text nor a list of texts: {shorten(value)}")
    if "" in ideals:
        raise NotImportableError("its `ideal` is empty, so every answer would be right")
    return list(dict.fromkeys(ideals))


_GRADERS: Mapping[str, Grading] = {
    "Match": _match,
    "Includes": _includes,
    "JsonMatch": _json_match,
    "ModelBasedClassify": _model_based,
}
#: arguments that each class handles beside the harmless ones
_KNOWN_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "Match": frozenset({"num_few_shot", "few_shot_jsonl"}),
    "Includes": frozenset({"ignore_case"}),
    "ModelBasedClassify": frozenset({"modelgraded_spec", "modelgraded_spec_args", "metaeval"}),
}
