"""The report of a run: what it shows, and the HTML of it, one file that needs no network.

What was asked and answered is data: Jinja escapes every value, and the page's Content-Security-Policy lets a browser
load and run nothing but the page's own style. The same report gives the same bytes. Texts and lists are cut, so that a
file stays under about 2 MB; what is cut is in the tables.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from itertools import groupby

import jinja2
import msgspec
from markupsafe import Markup

from airflow_provider_batch.evals import plots

#: cases that are shown of each model, and of all
MAX_CASES = 50
MAX_CASES_IN_ALL = 150
#: characters of each text that are shown
MAX_TEXT = 2_000
#: models that are shown: so many series can be told apart
MAX_VARIANTS = plots.SERIES

#: characters of a prompt that stand beside a closed case
_LINE = 90


class Accuracy(msgspec.Struct, frozen=True):
    """A share and the interval that it lies in 95 times of 100, between 0 and 1."""

    share: float
    low: float
    high: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A model's answers held against those of an accepted run."""

    baseline_run: str
    #: cases in both that have not changed and were answered; the others of this run
    cases: int
    left_out: int
    better: int
    worse: int
    #: accuracy now less accuracy then, over these cases
    difference: float
    #: corrected for the number of models; None if there was nothing to test
    p_value: float | None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One answer and its grade."""

    text: str | None
    score: float
    grader: str
    reason: str | None


class CaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A case that is worse than before, or wrong where there is no before."""

    case_id: str
    tags: list[str]
    prompt: str | None
    expected: str | None
    #: mean scores over the repeats
    before: float | None
    now: float
    #: accepted runs before in which it was answered, ten at most, and in how many of them right
    runs_before: int
    right_before: int
    answers: list[Answered]
    before_answer: str | None = None


class VariantView(msgspec.Struct, frozen=True, kw_only=True):
    """One model in this run."""

    name: str
    #: which of the report's models it is, from 0: its colour and marker
    number: int
    #: no_history, same, improved or regressed
    verdict: str
    accuracy: Accuracy | None
    #: of all answers that were asked for
    answers: int
    graded: int
    #: answers that did not come, by outcome
    unanswered: dict[str, int]
    cost_usd: float | None
    comparison: Comparison | None = None
    cases: list[CaseView] = []
    #: how many there are, shown or not
    cases_in_all: int = 0
    #: how many have each tag, the most frequent first
    cases_by_tag: dict[str, int] = {}

    @property
    def mood(self) -> str:
        """The colour of its card."""
        return {"regressed": "bad", "improved": "good", "same": "good"}.get(self.verdict, "unsure")

    @property
    def headline(self) -> str:
        """The verdict in words."""
        return VERDICTS.get(self.verdict, self.verdict)


class TagView(msgspec.Struct, frozen=True):
    """The accuracy of each model, in the order of the report, on the cases with a tag."""

    name: str
    cases: int
    values: list[Accuracy | None]


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one run, this one or an earlier one."""

    run: str
    at: datetime | None
    name: str
    #: as in `VariantView`; None for a model that this run does not have
    number: int | None
    accuracy: Accuracy | None
    verdict: str
    baseline_run: str | None
    #: US dollars, with what judging cost; None is unknown
    cost_usd: float | None
    #: what was expected before it ran, low and high
    estimate: tuple[float, float] | None
    input_tokens: int
    output_tokens: int
    unanswered: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a report shows."""

    title: str
    run: str
    #: when its answers were asked for
    at: datetime | None
    variants: list[VariantView]
    tags: list[TagView]
    #: the newest first, this run among them
    runs: list[RunView]


class _Plot(msgspec.Struct, frozen=True):
    title: str
    caption: str
    svg: Markup


VERDICTS = {
    "no_history": "No history yet",
    "same": "No change beyond chance",
    "improved": "Improved",
    "regressed": "Regressed",
}


def render(report: Report) -> str:
    """The whole page, as HTML. Without matplotlib (the extra `evals`) it has no plots and says so."""
    return _template.render(
        report=report,
        plots=_plots(report),
        runs=[list(rows) for _, rows in groupby(report.runs, key=lambda row: row.run)],
        moments={row.run: _time(row.at) for row in report.runs if row.at},
        can_plot=plots.available(),
        style=Markup(_style),
        policy=policy(_style.encode()),
        signs=plots.MARKER_SIGNS,
    )


def policy(style: bytes) -> str:
    """The Content-Security-Policy of a page with this style: it loads and runs nothing else."""
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _plots(report: Report) -> list[_Plot]:
    if not plots.available():
        return []
    drawn = []
    order = list(dict.fromkeys(row.run for row in reversed(report.runs)))[-plots.MAX_RUNS :]
    days = {row.run: f"{row.at:%d %b}" if row.at else row.run[-6:] for row in report.runs}
    when = days if len(set(days.values())) == len(days) else {row.run: _clock(row) for row in report.runs}
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
    if any(one.points for one in history):
        drawn.append(
            _Plot(
                "Accuracy over runs",
                f"the last {len(order)} runs, with their 95 % interval" if len(order) > 1 else "this is the first run",
                Markup(plots.trend(history, [when[run] for run in order])),
            )
        )
    paid = [
        plots.Series(row.name, row.number, [plots.Point(row.cost_usd, *_three(row.accuracy))])
        for row in report.runs
        if row.run == report.run and row.number is not None and row.accuracy and row.cost_usd is not None
    ]
    if paid:
        drawn.append(
            _Plot(
                "Cost against accuracy",
                "of this run; further up is better, further left is cheaper",
                Markup(plots.cost(paid)),
            )
        )
    shown = report.tags[: plots.MAX_TAGS]
    if shown:
        of_tags = [
            plots.Series(
                variant.name,
                variant.number,
                [plots.Point(place, *_three(tag.values[at])) for place, tag in enumerate(shown) if tag.values[at]],
            )
            for at, variant in enumerate(report.variants)
        ]
        more = len(report.tags) - len(shown)
        drawn.append(
            _Plot(
                "Accuracy per tag",
                "with its 95 % interval" + (f"; {more} more tags are in the table below" if more else ""),
                Markup(plots.tags(of_tags, [tag.name for tag in shown])),
            )
        )
    return drawn


def _clock(row: RunView) -> str:
    """When a run was, where there are several a day."""
    return f"{row.at:%d %b}\n{row.at:%H:%M}" if row.at else row.run[-6:]


def _three(value: Accuracy | None) -> Sequence[float]:
    assert value is not None
    return value.share, value.low, value.high


def _usd(value: float | None) -> str:
    if value is None:
        return "unknown cost"
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:,.4f}"


def _estimate(value: tuple[float, float] | None) -> str:
    return "–" if value is None else f"{_usd(value[0])} to {_usd(value[1])}"


def _time(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M}"


def _cut(value: str | None) -> str:
    if value is None:
        return "–"
    if len(value) <= MAX_TEXT:
        return value
    return f"{value[:MAX_TEXT]}… ({len(value) - MAX_TEXT:,} more characters are in the table)"


def _line(value: str | None) -> str:
    """How a text begins, on one line."""
    line = " ".join((value or "")[: 4 * _LINE].split())
    return line if len(line) <= _LINE else f"{line[:_LINE]}…"


def _probability(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_style = _asset("report.css")
_environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
_environment.filters.update(
    cut=_cut,
    estimate=_estimate,
    line=_line,
    number=lambda value: f"{value:,}",
    percent=lambda value: f"{value * 100:.1f} %",
    points=lambda value: f"{value * 100:+.1f} points".replace("-", "−"),
    probability=_probability,
    range=lambda value: f"{value.low * 100:.1f} to {value.high * 100:.1f} %",
    score=lambda value: f"{value:.2f}".rstrip("0").rstrip("."),
    time=_time,
    usd=_usd,
    verdict=lambda value: {"no_history": "no history", "same": "no change"}.get(value, value),
)
_template = _environment.from_string(_asset("report.html"))
