"""The plots of a report, drawn by matplotlib as SVG and adapted to the page.

matplotlib writes fixed colours and `style` attributes. The page cannot use either. It has a light and a dark mode, so
its colours must come from its style sheet; and its Content-Security-Policy forbids `style` attributes, so that no
answer of a model can bring its own style. Each series is therefore drawn in a placeholder colour, and every style is
turned into attributes, with `class="s0"` for the first series. The same data always give the same bytes.
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

#: number of series that a reader can tell apart; the page's style sheet has a colour for each
SERIES = 8
#: markers of the series: names in matplotlib, and characters in the page's legend
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
MARKER_SIGNS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "⬢")
#: maximum number of tags, and of runs, in one plot
MAX_TAGS = 20
MAX_RUNS = 40

#: width of a plot in inches. An inch has 72 units of the SVG, and a unit is about a pixel on a phone.
_WIDTH = 5.0
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_INK = "#000000"
#: maximum length of a tag's name, in characters
_LABEL = 24
#: characters that are not allowed in XML 1.0
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: properties that matplotlib writes in `style` and that SVG also accepts as attributes
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
    """A share with its interval, all between 0 and 1, at a position on the x axis."""

    x: float
    share: float
    low: float
    high: float


class Series(msgspec.Struct, frozen=True):
    """The points of one model. `number` is its position among the report's models, from 0."""

    name: str
    number: int
    points: list[Point]


def available() -> bool:
    """Return whether matplotlib, from the extra `evals`, is installed."""
    return find_spec("matplotlib") is not None


def trend(series: Sequence[Series], labels: Sequence[str]) -> str:
    """Return an SVG with the accuracy over runs and its interval as a band.

    :param series: `x` of a point is the index of its run in `labels`.
    """
    with _figure(2.7) as (axes, to_svg):
        for line in series:
            x = [point.x for point in line.points]
            axes.fill_between(
                x,
                [point.low for point in line.points],
                [point.high for point in line.points],
                color=_colour(line.number),
                alpha=0.15,
                linewidth=0,
            )
            axes.plot(x, [point.share for point in line.points], color=_colour(line.number), linewidth=1.4)
            _draw_markers(axes, line)
        step = max(1, -(-len(labels) // 6))
        # Count back from the newest run, so that it always has a label.
        ticks = list(range(len(labels) - 1, -1, -step))
        axes.set_xticks(ticks, [labels[tick] for tick in ticks])
        axes.set_xlim(-0.5, max(len(labels) - 0.5, 0.5))
        _format_as_percent(axes.yaxis)
        return to_svg()


def tags(series: Sequence[Series], names: Sequence[str]) -> str:
    """Return an SVG with the accuracy per tag and its interval.

    :param series: `x` of a point is the index of its tag in `names`.
    """
    spacing = 0.7 / max(len(series), 1)
    with _figure(0.6 + len(names) * max(0.24, 0.13 * len(series))) as (axes, to_svg):
        for position, model in enumerate(series):
            shift = (position - (len(series) - 1) / 2) * spacing
            for point in model.points:
                y = point.x + shift
                axes.plot([point.low, point.high], [y, y], color=_colour(model.number), linewidth=1.4, alpha=0.6)
            _draw_markers(axes, model, lambda point, shift=shift: (point.share, point.x + shift))
        axes.set_yticks(range(len(names)), [_label(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        _format_as_percent(axes.xaxis)
        return to_svg()


def cost(series: Sequence[Series]) -> str:
    """Return an SVG with the cost on the x axis and the accuracy with its interval on the y axis.

    :param series: `x` of a point is in US dollars.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    with _figure(2.7) as (axes, to_svg):
        costs = [point.x for model in series for point in model.points]
        spread = max(costs) / min(costs) if costs and min(costs) > 0 else 0
        if spread > 30:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            axes.set_xlim(0, max(costs, default=1) * 1.15 or 1)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: f"${value:.12f}".rstrip("0").rstrip("."))
        axes.xaxis.set_minor_formatter(lambda *_: "")
        for model in series:
            for point in model.points:
                axes.plot([point.x] * 2, [point.low, point.high], color=_colour(model.number), linewidth=1.4, alpha=0.6)
            _draw_markers(axes, model)
        axes.set_xlabel("cost of the run")
        _format_as_percent(axes.yaxis)
        return to_svg()


def _draw_markers(axes: Axes, series: Series, position: Any = lambda point: (point.x, point.share)) -> None:
    positions = [position(point) for point in series.points]
    axes.plot(
        [x for x, _ in positions],
        [y for _, y in positions],
        color=_colour(series.number),
        marker=MARKERS[series.number % SERIES],
        markersize=5,
        markeredgewidth=0,
        linestyle="none",
    )


def _label(text: str) -> str:
    """Return an untrusted name, shortened for an axis and without characters that XML forbids."""
    label = " ".join(_NOT_XML.sub("\ufffd", text).split())
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"


def _format_as_percent(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{value * 100:.6g} %" if -1e-9 <= value <= 1 + 1e-9 else "")


def _colour(number: int) -> str:
    """Return the placeholder colour of a series. `_restyle` turns it into a class."""
    return f"#0000{number % SERIES + 1:02x}"


@contextmanager
def _figure(height: float) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Yield axes to draw in, and a function that returns the SVG.

    This changes no global state of matplotlib, because other code in the worker may use matplotlib too.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "airflow-provider-batch",
        "font.size": 9.5,
        # otherwise a $ in the name of a tag starts a formula
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

        def to_svg() -> str:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", transparent=True)
            return _adapt_to_page(buffer.getvalue())

        yield axes, to_svg


def _adapt_to_page(svg: bytes) -> str:
    """Remove prolog, sizes, styles and unused ids from matplotlib's SVG."""
    root = ElementTree.fromstring(svg)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    used_ids = {name for element in root.iter() for name in re.findall(r"#(\w+)", _references(element))}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if element.get("id") not in used_ids:
            element.attrib.pop("id", None)
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
        _restyle(element)
        # The line breaks between elements make up half of matplotlib's output.
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
    # The page's style sheet sets the font size of the text, which has to equal font.size above.
    if element.tag in ("text", "path") and not {"fill", "stroke"} & element.attrib.keys():
        element.set("fill", "currentColor")
