"""Sphinx directives that write the tables of the reference from the code, so that they cannot drift from it.

Where the code has no words for its readers, the page gives them, one line for each name: `name: what it means`. A name
that is missing on the page, or not in the code, fails the build.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from names import explaining_pages, names, page_title
from row_codes import row_codes
from sphinx.util.docutils import SphinxDirective

from airflow_provider_batch.cli.main import COMMANDS, load
from airflow_provider_batch.core.landing.columns import FIXED_COLUMNS
from airflow_provider_batch.core.lifecycle import failures
from airflow_provider_batch.core.lifecycle.metrics import METRICS
from airflow_provider_batch.core.provider.catalogue import PROVIDERS
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.get_provider_info import get_provider_info
from airflow_provider_batch.warehouse.dialects.registry import DIALECTS

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


class CodeTable(SphinxDirective):
    """The base class: a directive that returns Markdown."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the Markdown."""
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)

    def markdown(self) -> str:
        """Return the Markdown."""
        raise NotImplementedError

    def descriptions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the description that the page gives to each name of the code.

        :raises docutils error: if the page misses one, or describes another name.
        """
        lines = (line.partition(": ") for line in self.content if line.strip())
        described = {name.strip(): text.strip() for name, _, text in lines}
        expected = set(names)
        missing, unknown = expected - described.keys(), described.keys() - expected
        if missing or unknown:
            raise self.error(f"Without a description: {sorted(missing)}. Not in the code: {sorted(unknown)}.")
        return described


class Configuration(CodeTable):
    """The options of the section `[openai_batch]`."""

    def markdown(self) -> str:
        """Return a section for each option."""
        options: Mapping[str, Any] = get_provider_info()["config"]["openai_batch"]["options"]
        return "\n\n".join(self._option(name, option) for name, option in options.items())

    def _option(self, name: str, option: Mapping[str, Any]) -> str:
        example = f"\n* Example: `{option['example']}`" if option["example"] else ""
        default = f"`{option['default']}`" if option["default"] else "empty"
        return (
            f"## {name}\n\n{option['description']}\n\n* Type: {option['type']}\n* Default: {default}{example}\n"
            f"* Environment variable: `AIRFLOW__OPENAI_BATCH__{name.upper()}`"
        )


class CommandHelp(CodeTable):
    """The arguments of one command of `airflow-batch`, and of its subcommands."""

    def markdown(self) -> str:
        """Return the help of the command, as the command prints it."""
        name = self.arguments[0]
        module = load(name)
        parser = argparse.ArgumentParser(prog=f"airflow-batch {name}", description=module.DESCRIPTION)
        module.add_arguments(parser)
        return "\n\n".join(f"```text\n{text.rstrip()}\n```" for text in _helps(parser))


def _helps(parser: argparse.ArgumentParser) -> list[str]:
    texts = [parser.format_help()]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                texts += _helps(subparser)
    return texts


class Commands(CodeTable):
    """The list of all commands."""

    def markdown(self) -> str:
        """Return a table with a row for each command."""
        rows = [
            (f"`airflow-batch {name}`", f"{command.summary[0].upper()}{command.summary[1:]}.")
            for name, command in COMMANDS.items()
        ]
        return _table(("command", "what it does"), rows)


class ResultsColumns(CodeTable):
    """The columns of every results table."""

    def markdown(self) -> str:
        """Return a table with a row for each column, in the order in which they are created."""
        descriptions = self.descriptions(column.name for column in FIXED_COLUMNS)
        rows = [
            (f"`{column.name}`", column.type, "yes" if column.may_be_null else "", descriptions[column.name])
            for column in FIXED_COLUMNS
        ]
        return _table(("column", "type", "may be NULL", "content"), rows)


class Members(CodeTable):
    """The members of an enumeration, such as the outcomes: `{members} module:Enumeration`."""

    def markdown(self) -> str:
        """Return a table with a row for each member."""
        module, _, name = self.arguments[0].partition(":")
        enumeration: type[Enum] = getattr(importlib.import_module(module), name)
        descriptions = self.descriptions(str(member.value) for member in enumeration)
        return _table(
            ("value", "meaning"), [(f"`{member.value}`", descriptions[str(member.value)]) for member in enumeration]
        )


class RowCodes(CodeTable):
    """The error codes that the package gives to rows: `code: when | whether it is retried | what to do`."""

    def markdown(self) -> str:
        """Return a table with a row for each code."""
        codes = row_codes()
        descriptions = self.descriptions(codes)
        rows = [(f"`{code}`", *descriptions[code].split(" | ")) for code in sorted(codes)]
        return _table(("code", "when", "retried", "what you can do"), rows)


class BatchCodes(CodeTable):
    """The provider's error codes by which a failed batch, or a refused call, is classified."""

    classes: ClassVar = {
        "capacity": failures._CAPACITY_CODES,
        "account": failures._ACCOUNT_CODES,
        "lines": failures._PERMANENT_CODES,
    }

    def markdown(self) -> str:
        """Return a table with a row for each class of failures."""
        descriptions = self.descriptions(self.classes)
        rows = [
            (f"`{name}`", " ".join(f"`{code}`" for code in sorted(codes)), descriptions[name])
            for name, codes in self.classes.items()
        ]
        return _table(("class", "codes", "also"), rows)


class Providers(CodeTable):
    """The providers whose limits are known."""

    def markdown(self) -> str:
        """Return a table with a row for each provider."""
        rows = [
            (
                f"[{provider.name}]({provider.source})",
                " ".join(f"`{domain}`" for domain in provider.domains),
                f"{provider.limits.requests:,}",
                f"{provider.limits.bytes / 1e6:,.0f} MB",
                f"{provider.limits.inputs:,}",
                "yes" if provider.price_list else "no",
            )
            for provider in PROVIDERS
        ]
        head = (
            "provider",
            "hosts",
            "requests in a file",
            "size of a file",
            "embedding inputs in a file",
            "prices known",
        )
        return _table(head, rows)


class Databases(CodeTable):
    """The type of a column that is created, in each database."""

    databases: ClassVar = [dialect for dialect in DIALECTS if any(dialect.types.values())]

    def markdown(self) -> str:
        """Return a table with a row for each type, and a column for each database."""
        rows = [
            (
                kind.value,
                *(f"`{name}`" if (name := dialect.types.get(kind, "")) else "none" for dialect in self.databases),
            )
            for kind in ColumnType
        ]
        return _table(("type", *(dialect.name for dialect in self.databases)), rows)


class Metrics(CodeTable):
    """The metrics that jobs and triggerers send."""

    def markdown(self) -> str:
        """Return a table with a row for each metric."""
        rows = [
            (f"`{name}`", metric.kind.value, metric.unit, f"`{metric.tags}`" if metric.tags else "", metric.meaning)
            for name, metric in METRICS.items()
        ]
        return _table(("name", "kind", "unit", "tag", "meaning"), rows)


class Names(CodeTable):
    """The public names, each with the page that explains it."""

    def markdown(self) -> str:
        """Return a table with a row for each name."""
        try:
            pages = explaining_pages(self.content)
        except ValueError as error:
            raise self.error(str(error)) from error
        rows = [
            (f"`{name}`", ", ".join(owners), f"[{page_title(pages[name])}](../{pages[name]}.md)")
            for name, owners in names().items()
        ]
        return _table(("name", "of", "explained in"), rows)


class ModuleDocs(CodeTable):
    """The docstring of a module that is written in Markdown."""

    def markdown(self) -> str:
        """Return the docstring without its first line, which the page replaces by its own introduction."""
        docstring = inspect.getdoc(importlib.import_module(self.arguments[0])) or ""
        return docstring.partition("\n\n")[2]


def link_pages(app: Sphinx, what: str, name: str, subject: object, options: object, lines: list[str]) -> None:
    """Turn the paths of pages in a docstring into links."""
    lines[:] = [re.sub(r"`docs/([\w/-]+)\.md`", r":doc:`/\1`", line) for line in lines]


def mark_code_blocks(app: Sphinx, what: str, name: str, subject: object, options: object, lines: list[str]) -> None:
    """Mark the indented blocks of a docstring as code, as they are meant."""
    for number in range(len(lines) - 2, 0, -1):
        before, line, after = lines[number - 1 : number + 2]
        if not line and after.startswith("    ") and before and not before.startswith((" ", ":", "*")):
            lines[number:number] = ["", "::"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.setup_extension("sphinx.ext.autodoc")
    # argparse wraps its help to the width of the terminal
    os.environ["COLUMNS"] = "100"
    app.add_directive("configuration", Configuration)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("commands", Commands)
    app.add_directive("results-columns", ResultsColumns)
    app.add_directive("members", Members)
    app.add_directive("row-codes", RowCodes)
    app.add_directive("batch-codes", BatchCodes)
    app.add_directive("providers", Providers)
    app.add_directive("databases", Databases)
    app.add_directive("metrics", Metrics)
    app.add_directive("names", Names)
    app.add_directive("module-docs", ModuleDocs)
    app.connect("autodoc-process-docstring", mark_code_blocks)
    app.connect("autodoc-process-docstring", link_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
