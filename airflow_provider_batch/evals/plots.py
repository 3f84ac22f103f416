"""The plots of a report: matplotlib draws, and what it drew is made fit to stand in a page.

matplotlib writes fixed colours and `style` attributes. A page that is light or dark needs colours from its style sheet,
and a Content-Security-Policy that lets no answer of a model bring a style of its own forbids such attributes. So each
series is drawn in a colour that stands for it, and every style becomes attributes, with `class="s0"` for the first
series. The same data give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import msgspec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: series that look different; the page's style sheet has a colour for each
SERIES = 8
#: how the points of a series look: to matplotlib, and as a character in the page's legend
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
MARKER_SIGNS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "⬢")
#: tags, and runs, that one plot shows
MAX_TAGS = 20
MAX_RUNS = 40

#: inches of 72 units of the SVG each; on a phone a unit is about a pixel
_WIDTH = 5.0
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_INK = "#000000"
#: characters of the name of a tag that are shown
_LABEL = 24
#: what no XML 1.0 document may hold
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: what matplotlib says in `style` and a browser takes as an attribute of its own
_ATTRIBUTES = frozenset(
    {
        "fill",
        "fill-opacity",
        "fill-rule",
        "opacity",
        "stroke",
        "stroke-dasharray",
        "stroke-dashoffset",
        "stroke-linecap",
        "stroke-linejoin",
        "stroke-miterlimit",
        "stroke-opacity",
        "stroke-width",
        "text-anchor",
    }
)


class Point(msgspec.Struct, frozen=True):
    """A share with its interval, all between 0 and 1, at a place along the x axis."""

    x: float
    share: float
    low: float
    high: float


class Series(msgspec.Struct, frozen=True):
    """The points of one model, and which series of the report it is, from 0."""

    name: str
    number: int
    points: list[Point]


def available() -> bool:
    """Whether matplotlib, which the extra `evals` brings, is installed."""
    return find_spec("matplotlib") is not None


def trend(series: Sequence[Series], labels: Sequence[str]) -> str:
    """Accuracy over runs with its interval as a band, as SVG. `x` of a point is the place of its run in `labels`."""
    with _figure(2.7) as (axes, done):
        for one in series:
            x = [point.x for point in one.points]
            axes.fill_between(
                x,
                [point.low for point in one.points],
                [point.high for point in one.points],
                color=_colour(one.number),
                alpha=0.15,
                linewidth=0,
            )
            axes.plot(x, [point.share for point in one.points], color=_colour(one.number), linewidth=1.4)
            _dots(axes, one)
        step = max(1, -(-len(labels) // 6))
        # the newest run is always named
        ticks = list(range(len(labels) - 1, -1, -step))
        axes.set_xticks(ticks, [labels[tick] for tick in ticks])
        axes.set_xlim(-0.5, max(len(labels) - 0.5, 0.5))
        _percent(axes.yaxis)
        return done()


def tags(series: Sequence[Series], names: Sequence[str]) -> str:
    """Accuracy per tag with its interval, as SVG. `x` of a point is the place of its tag in `names`."""
    apart = 0.7 / max(len(series), 1)
    with _figure(0.6 + len(names) * max(0.24, 0.13 * len(series))) as (axes, done):
        for place, one in enumerate(series):
            shift = (place - (len(series) - 1) / 2) * apart
            for point in one.points:
                y = point.x + shift
                axes.plot([point.low, point.high], [y, y], color=_colour(one.number), linewidth=1.4, alpha=0.6)
            _dots(axes, one, lambda point, shift=shift: (point.share, point.x + shift))
        axes.set_yticks(range(len(names)), [_label(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        _percent(axes.xaxis)
        return done()


def cost(series: Sequence[Series]) -> str:
    """Accuracy with its interval against what it cost, as SVG. `x` of a point is US dollars."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    with _figure(2.7) as (axes, done):
        known = [point.x for one in series for point in one.points]
        spread = max(known) / min(known) if known and min(known) > 0 else 0
        if spread > 30:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            axes.set_xlim(0, max(known, default=1) * 1.15 or 1)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: f"${value:.12f}".rstrip("0").rstrip("."))
        axes.xaxis.set_minor_formatter(lambda *_: "")
        for one in series:
            for point in one.points:
                axes.plot([point.x] * 2, [point.low, point.high], color=_colour(one.number), linewidth=1.4, alpha=0.6)
            _dots(axes, one)
        axes.set_xlabel("cost of the run")
        _percent(axes.yaxis)
        return done()


def _dots(axes: Axes, one: Series, place: Any = lambda point: (point.x, point.share)) -> None:
    spots = [place(point) for point in one.points]
    axes.plot(
        [x for x, _ in spots],
        [y for _, y in spots],
        color=_colour(one.number),
        marker=MARKERS[one.number % SERIES],
        markersize=5,
        markeredgewidth=0,
        linestyle="none",
    )


def _label(text: str) -> str:
    """A name that may hold anything, short enough for an axis and without what XML cannot say."""
    plain = " ".join(_NOT_XML.sub("\ufffd", text).split())
    return plain if len(plain) <= _LABEL else plain[: _LABEL - 1] + "…"


def _percent(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{value * 100:.6g} %" if -1e-9 <= value <= 1 + 1e-9 else "")


def _colour(number: int) -> str:
    """The colour that stands for a series until the page gives it one."""
    return f"#0000{number % SERIES + 1:02x}"


@contextmanager
def _figure(height: float) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes to draw in, and what gives the SVG. Nothing of it is global: the worker may use matplotlib itself."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "airflow-provider-batch",
        "font.size": 9.5,
        # a $ in the name of a tag begins no formula
        "text.parse_math": False,
        "axes.edgecolor": _INK,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _INK,
        "grid.alpha": 0.15,
        "grid.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "figure.constrained_layout.use": True,
    }
    with rc_context(settings):
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.add_subplot()

        def done() -> str:
            drawn = io.BytesIO()
            figure.savefig(drawn, format="svg", transparent=True)
            return _for_a_page(drawn.getvalue())

        yield axes, done


def _for_a_page(svg: bytes) -> str:
    """What matplotlib drew, without prolog, sizes, styles and the names it gave to parts."""
    root = ElementTree.fromstring(svg)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    used = {found for element in root.iter() for found in re.findall(r"#(\w+)", _references(element))}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
        _restyle(element)
        # the line ends between elements are half of what it writes
        for text in ("text", "tail"):
            if not (getattr(element, text) or "").strip():
                setattr(element, text, None)
    return ElementTree.tostring(root, encoding="unicode")


def _references(element: ElementTree.Element) -> str:
    return " ".join((element.get(_XLINK, ""), element.get("clip-path", "")))


def _restyle(element: ElementTree.Element) -> None:
    styles = dict(part.partition(":")[::2] for part in element.attrib.pop("style", "").split(";") if part.strip())
    for name, value in ((name.strip(), value.strip()) for name, value in styles.items()):
        if name in ("fill", "stroke") and value.startswith("#"):
            number = int(value[1:], 16)
            element.set(name, "currentColor")
            if 0 < number <= SERIES:
                element.set("class", f"s{number - 1}")
        elif name in _ATTRIBUTES:
            element.set(name, value)
    # text is as large as the page's style sheet says, which has to agree with font.size above
    if element.tag in ("text", "path") and not {"fill", "stroke"} & element.attrib.keys():
        element.set("fill", "currentColor")
