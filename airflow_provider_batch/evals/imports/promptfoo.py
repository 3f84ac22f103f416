"""Configurations of promptfoo: `promptfooconfig.yaml`, with its prompts and tests.

Each test is sent with each prompt. A variable with a list of texts stands for one test per text. `promptfoo_asserts`
has the assertions, `promptfoo_csv` tests in tables, and `templates` what is rendered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.evals.graders import JUDGED
from airflow_provider_batch.evals.imports.drafts import (
    Draft,
    Imported,
    Skipped,
    build_cases,
    encode_graders,
    tag_names,
)
from airflow_provider_batch.evals.imports.messages import NotImportableError, flatten
from airflow_provider_batch.evals.imports.promptfoo_asserts import check_judges, map_assertion
from airflow_provider_batch.evals.imports.promptfoo_csv import tests_of_rows
from airflow_provider_batch.evals.imports.reading import (
    decode_text,
    read_csv,
    read_json_lines,
    read_json_records,
)
from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED, ImportFiles, ImportOptions
from airflow_provider_batch.evals.imports.templates import parse_json, render, render_json, resolve_variables
from airflow_provider_batch.evals.imports.values import text_of
from airflow_provider_batch.evals.imports.yaml_values import read_yaml
from airflow_provider_batch.exceptions import InputError

#: keys of a test that an import understands, or that change neither the question nor the grade
_TEST_KEYS = frozenset({"vars", "assert", "threshold", "options", "description", "metadata", "provider", "providers"})
_OPTION_KEYS = frozenset({"prefix", "suffix", "disableDefaultAsserts", "disableVarExpansion", "provider", "repeat"})
_FILE_ENDINGS = (".txt", ".md", ".json", ".jsonl", ".yaml", ".yml", ".csv", ".js", ".ts", ".py", ".mjs", ".cjs")
#: maximum number of tests that the lists of one test may stand for
_MAX_COMBINATIONS = 10_000
#: maximum number of cases, and of characters in their inputs, that the prompts and tests of a file may stand for
_MAX_CASES = 200_000
_MAX_CHARACTERS = 256 << 20

_JUDGE_NOTE = (
    "Some cases are graded by the judge of your DAG. Only the criterion was imported, not the prompt and the model of "
    "promptfoo's judge."
)
_PROVIDER_NOTE = "Providers (models) were not imported: the form of the DAG chooses the models."


def read_promptfoo(files: ImportFiles, options: ImportOptions) -> Imported:
    """Import a configuration of promptfoo in YAML or JSON."""
    if options.grader or options.scorer or set(options.columns) - {"tags"}:
        raise InputError(
            "A configuration of promptfoo names its graders and columns itself. Only the column `tags` can be chosen, "
            f"which names the key of the metadata with the tags. {NOTHING_IMPORTED}"
        )
    config = read_yaml(files.read(), _base_name(files.address))
    if not isinstance(config, Mapping):
        raise InputError(f"{files.address} is not a configuration of promptfoo. {NOTHING_IMPORTED}")
    suite = _Suite(config, files, options)
    items = list(_limited(suite.items(), files.address))
    notes = [_PROVIDER_NOTE] if "providers" in config or "targets" in config else []
    if any(isinstance(item, Draft) and any(name in item.grader for name in JUDGED) for item in items):
        notes.append(_JUDGE_NOTE)
    return build_cases(items, notes)


def _limited(items: Iterator[Draft | Skipped], address: str) -> Iterator[Draft | Skipped]:
    """Yield the items, but not so many that a small file fills the memory."""
    characters = 0
    for number, item in enumerate(items):
        characters += len(item.input) if isinstance(item, Draft) else 0
        if number >= _MAX_CASES or characters > _MAX_CHARACTERS:
            raise InputError(
                f"{address} stands for more than {_MAX_CASES:,} cases, or for more than {_MAX_CHARACTERS >> 20} MB of "
                f"text: each test is sent with each prompt. Split it. {NOTHING_IMPORTED}"
            )
        yield item


class _Suite:
    """The tests of a configuration, and the prompts that each of them is sent with."""

    def __init__(self, config: Mapping[str, Any], files: ImportFiles, options: ImportOptions) -> None:
        self._config, self._files, self._options = config, files, options
        self._place = _base_name(files.address)
        default = config.get("defaultTest") or {}
        if isinstance(default, str):
            path = default.removeprefix("file://")
            default = read_yaml(files.read(path), path)
        self._default: Mapping[str, Any] = default if isinstance(default, Mapping) else {}

    def items(self) -> Iterator[Draft | Skipped]:
        """Yield a draft, or the reason why there is none, for each test and prompt."""
        prompts = self._prompts()
        if self._config.get("scenarios"):
            yield Skipped(f"{self._place}, scenarios", "scenarios are not imported; write their tests under `tests`")
        for place, test in self._tests():
            try:
                yield from self._drafts(place, test, prompts)
            except NotImportableError as error:
                yield Skipped(place, str(error))

    def _drafts(self, place: str, test: Mapping[str, Any], prompts: Sequence[str]) -> Iterator[Draft | Skipped]:
        options = self._merged(test, "options")
        self._check(test, options)
        for values in self._combinations(self._merged(test, "vars"), options):
            expected, grader = self._graders(test, options, values)
            for number, prompt in enumerate(prompts, start=1):
                prompt_place = place if len(prompts) == 1 else f"{place}, prompt {number}"
                try:
                    question = self._question(prompt, values, options)
                except NotImportableError as error:
                    yield Skipped(prompt_place, str(error))
                    continue
                yield Draft(
                    place=prompt_place,
                    input=question,
                    expected=expected,
                    grader=grader,
                    name=self._options.name,
                    tags=tag_names(self._merged(test, "metadata").get(self._options.columns.get("tags", ""))),
                )

    def _merged(self, test: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return a mapping of a test, with the entries of `defaultTest` that it does not replace."""
        parts = [self._default.get(name) or {}, test.get(name) or {}]
        if not all(isinstance(part, Mapping) for part in parts):
            raise NotImportableError(f"its `{name}` is not a mapping")
        return {**parts[0], **parts[1]}

    def _check(self, test: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        for name in sorted({**self._default, **test}):
            if name not in _TEST_KEYS:
                raise NotImportableError(f"it has {name!r}, which has no counterpart")
        for name in sorted(options):
            if name not in _OPTION_KEYS:
                raise NotImportableError(f"it has the option {name!r}, which has no counterpart")

    def _combinations(self, values: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the variables of each test that one test stands for."""
        choices: list[list[Any]] = []
        for value in values.values():
            is_list = isinstance(value, list) and value and isinstance(value[0], str)
            choices.append(value if is_list and not options.get("disableVarExpansion") else [value])
        count = 1
        for choice in choices:
            count *= len(choice)
        if count > _MAX_COMBINATIONS:
            raise NotImportableError(f"its lists of variables stand for {count:,} tests")
        for combination in product(*choices):
            yield self._resolve(dict(zip(values, combination, strict=True)))

    def _resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return variables with their files read, and with the variables in them replaced."""
        texts: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, str) and value.startswith("file://"):
                content = self._read_file(value)
                value = content.strip() if isinstance(content, str) else text_of(content)
            texts[name] = value.removesuffix("\n") if isinstance(value, str) else value
        return resolve_variables(texts)

    def _question(self, prompt: str, values: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        text = f"{options.get('prefix') or ''}{prompt}{options.get('suffix') or ''}"
        # promptfoo also takes a text in YAML for a list of messages if it begins like one
        document = read_yaml(text.encode(), "the prompt") if text.startswith("- role:") else parse_json(text)
        if document is None:
            return render(text, values, "the prompt")
        return flatten(render_json(document, values, "the prompt"), transcript=self._options.transcript)

    def _graders(
        self, test: Mapping[str, Any], options: Mapping[str, Any], values: Mapping[str, Any]
    ) -> tuple[str | None, str]:
        """Return the columns `expected` and `grader`."""
        defaults = [] if options.get("disableDefaultAsserts") is True else self._default.get("assert") or []
        assertions = [*defaults, *(test.get("assert") or [])]
        if not assertions:
            raise NotImportableError("it has no assertion, so every answer would be right")
        threshold = test.get("threshold", self._default.get("threshold"))
        if threshold is not None and (not isinstance(threshold, (int, float)) or not 0 < threshold <= 1):
            raise NotImportableError(f"its threshold is {threshold!r}, and a threshold is above 0 and at most 1 here")
        specs = [
            spec
            for assertion in assertions
            for spec in map_assertion(self._dereference(assertion), values, self._read_file)
        ]
        check_judges(specs)
        return encode_graders(specs, threshold)

    def _dereference(self, assertion: Any) -> Mapping[str, Any]:
        """Return an assertion, or the template of the configuration that it refers to."""
        for _ in range(5):
            if not isinstance(assertion, Mapping) or "$ref" not in assertion:
                break
            value: Any = self._config
            for part in str(assertion["$ref"]).removeprefix("#/").split("/"):
                value = value.get(part) if isinstance(value, Mapping) else None
            assertion = value
        if not isinstance(assertion, Mapping) or "type" not in assertion:
            raise NotImportableError(f"an assertion has no type: {shorten(assertion)}")
        return assertion

    def _prompts(self) -> list[str]:
        """Return the texts of the prompts."""
        entries = self._config.get("prompts") or []
        prompts = [
            prompt
            for entry in (entries if isinstance(entries, list) else [entries])
            for prompt in self._prompt_texts(entry)
        ]
        if not prompts:
            raise InputError(f"{self._place} has no prompts. {NOTHING_IMPORTED}")
        return prompts

    def _prompt_texts(self, entry: Any) -> list[str]:
        if isinstance(entry, Mapping):
            entry = entry.get("raw") or entry.get("id")
        if not isinstance(entry, str):
            raise InputError(f"{self._place}: A prompt is not text: {shorten(entry)}. {NOTHING_IMPORTED}")
        is_file = entry.startswith("file://") or (entry.endswith(_FILE_ENDINGS) and "\n" not in entry)
        if not is_file:
            return [entry]
        path = entry.removeprefix("file://")
        if not path.endswith((".txt", ".md", ".json")):
            raise InputError(
                f"{self._place}: The prompt {entry} is not a text or JSON file, so it cannot be imported. "
                f"{NOTHING_IMPORTED}"
            )
        text = decode_text(self._files.read(path), path)
        if not path.endswith(".txt"):
            return [text]
        parts: list[list[str]] = [[]]
        for line in text.splitlines():
            parts.append([]) if line.strip() == "---" else parts[-1].append(line)
        return [text for part in parts if (text := "\n".join(part).strip())]

    def _tests(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the place and the content of each test."""
        entries = self._config.get("tests")
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries], start=1):
            if isinstance(entry, Mapping) and "path" in entry:
                entry = entry["path"]
            if isinstance(entry, str):
                yield from self._tests_of_file(entry.removeprefix("file://"))
            elif isinstance(entry, Mapping):
                description = entry.get("description")
                yield f"{self._place}, test {number}" + (f" ({description})" if description else ""), entry
            elif entry is not None:
                raise InputError(f"{self._place}: Test {number} is not a mapping. {NOTHING_IMPORTED}")

    def _tests_of_file(self, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        ending = path.rpartition(".")[2].lower()
        if ending == "csv":
            rows = tests_of_rows(read_csv(self._files.read(path), path))
            yield from ((f"{path}, line {line:,}", test) for line, test in rows)
        elif ending == "jsonl":
            tests = read_json_lines(self._files.read(path), path)
            yield from ((f"{path}, line {line:,}", test) for line, test in tests)
        elif ending == "json":
            tests = read_json_records(self._files.read(path), path)
            yield from ((f"{path}, test {number:,}", test) for number, test in tests)
        elif ending in ("yaml", "yml"):
            document = read_yaml(self._files.read(path), path)
            for number, test in enumerate(document if isinstance(document, list) else [document], start=1):
                if not isinstance(test, Mapping):
                    raise InputError(f"{path}: Test {number} is not a mapping. {NOTHING_IMPORTED}")
                yield f"{path}, test {number:,}", test
        else:
            raise InputError(
                f"{self._place}: Tests can be imported from CSV, JSON and YAML files, but not from {path}. "
                f"{NOTHING_IMPORTED}"
            )

    def _read_file(self, address: str) -> Any:
        """Return the content of a file that a variable or an assertion names."""
        path = address.removeprefix("file://")
        if any(character in path for character in "*{") or path.endswith((".py", ".js", ".ts", ".mjs", ".cjs", ".rb")):
            raise NotImportableError(f"the file {path} is a program or a pattern, and only data is imported")
        if path.endswith((".json", ".yaml", ".yml")):
            return read_yaml(self._files.read(path), path)
        if not path.endswith((".txt", ".md", ".csv", ".html", ".xml")):
            raise NotImportableError(f"the file {path} is not text")
        return decode_text(self._files.read(path), path)


def _base_name(address: str) -> str:
    return address.rpartition("/")[2]
