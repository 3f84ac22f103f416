// A line chart of a few series, drawn as SVG. Airflow brings no charts, and libraries for charts either need a build step
// or paint on a canvas, which a screen reader cannot see and which does not follow the colours of the page.

import { useNarrow } from "./parts.js";

const { Box, Flex, Text } = ChakraUI;

const h = React.createElement;

const WIDTH = 640;
const NARROW_WIDTH = 330;
const HEIGHT = 230;
const LEFT = 62;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 30;
const MAX_TICKS = 6;

/** Colours and markers of the series. The marker tells apart what the colour may not. */
const COLORS = ["blue", "orange", "green", "purple", "red", "teal", "pink", "yellow"];
const SIGNS = ["●", "■", "▲", "◆", "▼", "✚", "✖", "⬢"];

function color(number) {
  return `var(--chakra-colors-${COLORS[number % COLORS.length]}-500)`;
}

/** Return the lowest round number that is at least a value, such as 0.4, 2 or 60. A quarter of it is short, too. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 6, 8, 10].find((factor) => factor * power >= value * (1 - 1e-9));
}

/**
 * @param series `[{ name, points: [{ x, value, low, high, text }] }]`; `x` is an index of `labels`, and `low` and `high`
 *   may be absent.
 * @param labels what is below the x axis.
 * @param format writes a value of the y axis.
 * @param range lowest and highest value of the y axis.
 */
export function Chart({ title, series, labels, format, range: [bottom, top] }) {
  const width = useNarrow() ? NARROW_WIDTH : WIDTH;
  const x = (index) => LEFT + ((width - LEFT - RIGHT) * (index + 0.5)) / Math.max(labels.length, 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - bottom) / (top - bottom || 1));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => bottom + share * (top - bottom));
  const step = Math.max(1, Math.ceil(labels.length / (width === WIDTH ? MAX_TICKS : MAX_TICKS / 2)));
  const newest = labels.length - 1;
  return h(
    Box,
    { as: "figure", m: 0, flex: "1 1 22rem", minW: 0 },
    h(Text, { as: "figcaption", fontWeight: "medium", mb: 1 }, title),
    h(
      "svg",
      {
        viewBox: `0 0 ${width} ${HEIGHT}`,
        width: "100%",
        role: "img",
        "aria-label": `${title}. The table below has the same figures.`,
      },
      ticks.map((tick) =>
        h(
          "g",
          { key: tick },
          h("line", { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), stroke: "currentColor", opacity: 0.15 }),
          h(
            "text",
            { x: LEFT - 6, y: y(tick) + 4, textAnchor: "end", fontSize: 12, fill: "currentColor" },
            format(tick),
          ),
        ),
      ),
      labels.map((label, index) =>
        (newest - index) % step
          ? null
          : h(
              "text",
              { key: index, x: x(index), y: HEIGHT - 8, textAnchor: "middle", fontSize: 12, fill: "currentColor" },
              label,
            ),
      ),
      series.map(({ name, points }, number) =>
        h(
          "g",
          { key: name, fill: color(number), stroke: "none" },
          h("polyline", {
            points: points.map((point) => `${x(point.x)},${y(point.value)}`).join(" "),
            fill: "none",
            stroke: color(number),
            strokeWidth: 1.5,
          }),
          points.map((point) =>
            h(
              "g",
              { key: point.x },
              h("title", null, point.text),
              point.low === undefined
                ? null
                : h("line", {
                    x1: x(point.x),
                    x2: x(point.x),
                    y1: y(point.low),
                    y2: y(point.high),
                    stroke: color(number),
                    strokeWidth: 2,
                    opacity: 0.5,
                  }),
              h(
                "text",
                { x: x(point.x), y: y(point.value) + 5, textAnchor: "middle", fontSize: 14, fill: color(number) },
                SIGNS[number % SIGNS.length],
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

/** The names of the series with their markers. */
export function Legend({ names }) {
  return h(
    Flex,
    { as: "ul", gap: 4, wrap: "wrap", listStyleType: "none", p: 0, m: 0, fontSize: "sm", "aria-label": "Models" },
    names.map((name, number) =>
      h(
        "li",
        { key: name },
        h("span", { "aria-hidden": true, style: { color: color(number) } }, SIGNS[number % SIGNS.length]),
        ` ${name}`,
      ),
    ),
  );
}
