"""The report of a run: its content, and how it becomes one HTML file that needs no network.

Prompts and answers are untrusted. Jinja escapes every value, and the page's Content-Security-Policy allows a browser to
load and run nothing but the page's own style sheet. The same report always renders to the same bytes. Texts and lists
are cut so that a file stays under about 2 MB; the tables have the full content.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from itertools import groupby
from typing import NamedTuple

import jinja2
import msgspec
from markupsafe import Markup

from airflow_provider_batch.core.formatting import format_count, format_usd, format_usd_range
from airflow_provider_batch.evals import plots
from airflow_provider_batch.evals.judging import MAJORITY, Agreement
from airflow_provider_batch.evals.preferences import Preference
from airflow_provider_batch.evals.sentences import format_edited, format_smallest_drop

#: maximum number of cases to show per model, and for all models together
MAX_CASES = 50
MAX_CASES_TOTAL = 150
#: the same for cases that got better
MAX_BETTER = 10
MAX_BETTER_TOTAL = 30
#: maximum number of cases in a table of cases and models
MAX_ROWS = 100
#: number of runs that are searched for cases that are wrong every time, including the one of the report
RECENT_RUNS = 10
#: maximum length of a text, in characters
MAX_TEXT = 2_000
#: maximum number of models to show: a plot has this many distinguishable series
MAX_VARIANTS = plots.SERIES

#: maximum length of the excerpt of a prompt in the heading of a case, in characters
_LINE = 90


class Accuracy(msgspec.Struct, frozen=True):
    """An accuracy with its 95 % interval, as shares between 0 and 1."""

    share: float
    low: float
    high: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of a model's answers with its baseline."""

    baseline_run: str
    #: unchanged cases that were answered in both runs; `left_out` counts the other cases of this run
    cases: int
    left_out: int
    better: int
    worse: int
    #: accuracy now minus accuracy before, over these cases
    difference: float
    #: of a loss or of a gain, whichever is smaller; corrected for the number of models and tags
    p_value: float | None
    #: the smallest drop in accuracy that would be found on about three of four nights; None if none would
    smallest_drop: float | None = None
    #: tags whose cases got worse, or better, by more than chance explains
    regressed_tags: list[str] = []
    improved_tags: list[str] = []
    #: wrong cases that are not compared because they were edited
    edited_cases: list[str] = []

    @property
    def notes(self) -> list[str]:
        """What else to know about the comparison, as sentences."""
        notes = []
        for tags, verb in ((self.regressed_tags, "worse"), (self.improved_tags, "better")):
            if tags:
                notes.append(f"{format_count(len(tags), 'tag')} got {verb}: {', '.join(tags)}.")
        if self.edited_cases:
            names = ", ".join(self.edited_cases[:MAX_CASES])
            notes.append(f"{format_edited(len(self.edited_cases))} edited since, and not compared: {names}.")
        return [*notes, format_smallest_drop(self.smallest_drop)]


class AnswerView(msgspec.Struct, frozen=True, kw_only=True):
    """One answer and its grade."""

    text: str | None
    score: float
    grader: str
    reason: str | None


class CaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A case that got worse, or that is wrong if there is nothing to compare with."""

    case_id: str
    tags: list[str]
    prompt: str | None
    expected: str | None
    #: mean scores over the repeats
    score_before: float | None
    score_now: float
    #: number of baseline runs in which the case was answered, and in which it was right
    runs_before: int
    right_before: int
    answers: list[AnswerView]
    #: the best answer in the last accepted run, or the worst if the case got better
    earlier_answer: str | None = None


class CaseList(msgspec.Struct, frozen=True, kw_only=True):
    """Some cases of a model, with their answers."""

    cases: list[CaseView] = []
    #: number of cases, whether shown or not
    total: int = 0
    #: number of cases per tag, the most frequent tag first
    by_tag: dict[str, int] = {}


class CaseResult(NamedTuple):
    """What a model got in a case."""

    #: mean score
    score: float
    #: whether more of the answers are right than wrong
    is_right: bool


class CaseRow(msgspec.Struct, frozen=True):
    """A case, and the result of each model in it."""

    case_id: str
    tags: list[str]
    #: in the order of the report's models; None without an answer, or for a model that the row is not about
    results: list[CaseResult | None]
    prompt: str | None = None

    @property
    def all_right(self) -> bool:
        """Whether every model that answered is right."""
        return all(result.is_right for result in self.results if result is not None)

    @property
    def all_wrong(self) -> bool:
        """Whether every model that answered is wrong."""
        return not any(result.is_right for result in self.results if result is not None)

    @property
    def differs(self) -> bool:
        """Whether some models are right and others wrong."""
        return not self.all_right and not self.all_wrong


class CaseTable(msgspec.Struct, frozen=True):
    """A table of cases and models."""

    rows: list[CaseRow]
    #: number of cases, whether shown or not
    total: int


class VariantView(msgspec.Struct, frozen=True, kw_only=True):
    """One model in this run."""

    name: str
    #: position among the report's models, from 0; it selects colour and marker
    number: int
    #: no_history, same, improved, regressed or mixed
    verdict: str
    accuracy: Accuracy | None
    #: share of the cases with at least one right answer, and with more right answers than wrong ones; None if each case
    #: was sent once
    repeated: tuple[float, float] | None
    #: number of requested answers
    answers: int
    graded: int
    #: number of unanswered requests, by outcome
    unanswered: dict[str, int]
    cost_usd: float | None
    #: cost for each answer that is right, in US dollars; None if the cost is unknown or no answer is right
    cost_per_right_usd: float | None
    comparison: Comparison | None = None
    #: what got worse; without a baseline, what is wrong
    worse: CaseList = CaseList()
    better: CaseList = CaseList()

    @property
    def css_class(self) -> str:
        """CSS class of the model's card, which gives it the colour of the verdict."""
        return {"regressed": "bad", "mixed": "bad", "improved": "good", "same": "good"}.get(self.verdict, "unsure")

    @property
    def headline(self) -> str:
        """The verdict in words."""
        return VERDICTS.get(self.verdict, self.verdict)


class TagView(msgspec.Struct, frozen=True):
    """The accuracy of each model on the cases with a tag, in the order of the report's models."""

    name: str
    cases: int
    values: list[Accuracy | None]


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one run: this run or an earlier one."""

    run: str
    sealed_at: datetime | None
    name: str
    #: as in `VariantView`; None for a model that this run does not have
    number: int | None
    accuracy: Accuracy | None
    verdict: str
    baseline_run: str | None
    #: US dollars, including the judge; None if unknown
    cost_usd: float | None
    #: as in `VariantView`
    cost_per_right_usd: float | None
    #: estimate before the run in US dollars, low and high; None if unknown
    estimate_usd: tuple[float, float] | None
    #: None if unknown
    input_tokens: int | None
    output_tokens: int | None
    unanswered: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a report."""

    title: str
    run: str
    #: when the jobs of its answers were sealed, the latest of them
    sealed_at: datetime | None
    variants: list[VariantView]
    tags: list[TagView]
    #: newest first, including this run
    runs: list[RunView]
    #: number of runs that `always_wrong` is about, including this one
    recent_runs: int
    #: the cases that a model answered wrong in each of these runs
    always_wrong: CaseTable
    #: the cases that some models answered right and others wrong
    differing: CaseTable
    #: number of cases that all models answered right, and wrong
    agreed_right: int
    agreed_wrong: int
    #: whether models judge answers, and how far they agree with people
    has_judge: bool
    agreements: list[Agreement]
    #: the table with what people say of answers
    labels_table: str
    #: whether the report compares variants with each other rather than with earlier runs
    compares_variants: bool
    #: which of two models a judge prefers, for each pair that it compared
    preferences: list[Preference]
    #: number of answers of this run that no model wrote, because they come from the stub of the local batch server
    stub_answers: int = 0

    @property
    def headline(self) -> str:
        """The verdict for the whole run, as a sentence or two."""
        if self.compares_variants:
            return " ".join((self._most_accurate, *map(_preferred, self.preferences)))
        if not any(variant.comparison for variant in self.variants):
            return "No run has been accepted yet to compare with."
        regressed = [variant.name for variant in self.variants if variant.verdict in ("regressed", "mixed")]
        improved = [variant.name for variant in self.variants if variant.verdict in ("improved", "mixed")]
        worse = f"{', '.join(regressed)} got worse." if regressed else "No model got worse beyond chance."
        return f"{worse} {', '.join(improved)} got better." if improved else worse

    @property
    def _most_accurate(self) -> str:
        shares = {variant.name: variant.accuracy.share for variant in self.variants if variant.accuracy}
        best = [name for name, share in shares.items() if share == max(shares.values())]
        if len(best) == 1:
            return f"{best[0]} has the highest accuracy."
        return f"{', '.join(best)} have the same accuracy." if best else "No case was answered."

    @property
    def css_class(self) -> str:
        """CSS class of the verdict for the whole run."""
        classes = {variant.css_class for variant in self.variants}
        return next(name for name in ("bad", "good", "unsure") if name in classes)


def _preferred(preference: Preference) -> str:
    pair = f"{preference.variant} and {preference.other}"
    if preference.p_value > MAX_P:
        return f"Of {pair}, the judge prefers neither beyond chance."
    winner = preference.variant if preference.wins > preference.losses else preference.other
    return f"Of {pair}, the judge prefers {winner}."


class _Plot(msgspec.Struct, frozen=True):
    title: str
    caption: str
    svg: Markup


#: up to this p-value, a preference of the judge is more than chance explains
MAX_P = 0.05

VERDICTS = {
    "no_history": "No history yet",
    "same": "No change beyond chance",
    "improved": "Improved",
    "regressed": "Regressed",
    "mixed": "Some cases broke, others were fixed",
}


def render(report: Report, page: str = "") -> str:
    """Return the page as HTML. Without matplotlib (from the extra `evals`) it has a note in place of the plots.

    :param page: address of all answers in Airflow, to link to.
    """
    return _template.render(
        report=report,
        page=page,
        plots=_plots(report),
        runs=[list(rows) for _, rows in groupby(report.runs, key=lambda row: row.run)],
        times={row.run: _time(row.sealed_at) for row in report.runs if row.sealed_at},
        can_plot=plots.available(),
        style=Markup(_style),
        policy=policy(_style.encode()),
        signs=plots.MARKER_SIGNS,
        majority=MAJORITY,
    )


def policy(style: bytes) -> str:
    """Return a Content-Security-Policy that allows a page this style sheet and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _plots(report: Report) -> list[_Plot]:
    if not plots.available():
        return []
    rendered_plots = []
    order = list(dict.fromkeys(row.run for row in reversed(report.runs)))[-plots.MAX_RUNS :]
    days = {row.run: f"{row.sealed_at:%d %b}" if row.sealed_at else row.run[-6:] for row in report.runs}
    labels = days if len(set(days.values())) == len(days) else {row.run: _day_and_time(row) for row in report.runs}
    history = [
        plots.Series(
            variant.name,
            variant.number,
            sorted(
                (
                    plots.Point(order.index(row.run), row.accuracy.share, row.accuracy.low, row.accuracy.high)
                    for row in report.runs
                    if row.name == variant.name and row.accuracy and row.run in order
                ),
                key=lambda point: point.x,
            ),
        )
        for variant in report.variants
    ]
    if any(series.points for series in history):
        rendered_plots.append(
            _Plot(
                "Accuracy over runs",
                f"the last {len(order)} runs, with 95 % intervals" if len(order) > 1 else "this is the first run",
                Markup(plots.trend(history, [labels[run] for run in order])),
            )
        )
    costs = [
        plots.Series(row.name, row.number, [plots.Point(row.cost_usd, *_shares(row.accuracy))])
        for row in report.runs
        if row.run == report.run and row.number is not None and row.accuracy and row.cost_usd is not None
    ]
    if costs:
        rendered_plots.append(
            _Plot(
                "Cost against accuracy",
                "this run; higher is better, further left is cheaper",
                Markup(plots.cost(costs)),
            )
        )
    tags = report.tags[: plots.MAX_TAGS]
    if tags:
        tag_series = [
            plots.Series(
                variant.name,
                variant.number,
                [
                    plots.Point(position, *_shares(tag.values[index]))
                    for position, tag in enumerate(tags)
                    if tag.values[index]
                ],
            )
            for index, variant in enumerate(report.variants)
        ]
        omitted_count = len(report.tags) - len(tags)
        note = f"; the table below has {format_count(omitted_count, 'more tag')}" if omitted_count else ""
        rendered_plots.append(
            _Plot(
                "Accuracy per tag",
                f"with 95 % intervals{note}",
                Markup(plots.tags(tag_series, [tag.name for tag in tags])),
            )
        )
    return rendered_plots


def _day_and_time(row: RunView) -> str:
    return f"{row.sealed_at:%d %b}\n{row.sealed_at:%H:%M}" if row.sealed_at else row.run[-6:]


def _shares(value: Accuracy | None) -> Sequence[float]:
    assert value is not None
    return value.share, value.low, value.high


def _estimate(value: tuple[float, float] | None) -> str:
    return "–" if value is None else format_usd_range(*value)


def _time(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M}"


def _truncate_text(value: str | None) -> str:
    if value is None:
        return "–"
    if len(value) <= MAX_TEXT:
        return value
    return f"{value[:MAX_TEXT]}… (the table has {len(value) - MAX_TEXT:,} more characters)"


def _first_line(value: str | None) -> str:
    """Return the start of a text as a single line."""
    line = " ".join((value or "")[: 4 * _LINE].split())
    return line if len(line) <= _LINE else f"{line[:_LINE]}…"


def _probability(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_style = _asset("report.css")
_environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
_environment.filters.update(
    estimate=_estimate,
    first_line=_first_line,
    number=lambda value: "unknown" if value is None else f"{value:,}",
    percent=lambda value: f"{value * 100:.1f} %",
    points=lambda value: f"{value * 100:+.1f} points".replace("-", "−"),
    probability=_probability,
    range=lambda value: f"{value.low * 100:.1f} to {value.high * 100:.1f} %",
    score=lambda value: f"{value:.2f}".rstrip("0").rstrip("."),
    time=_time,
    truncate_text=_truncate_text,
    usd=format_usd,
    verdict=lambda value: {"no_history": "no history", "same": "no change"}.get(value, value),
)
_template = _environment.from_string(_asset("report.html"))
