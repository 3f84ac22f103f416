// Accuracy and cost of each model over the runs, with the verdict on each run, and what changed in the newest one.

import { Chart, Legend, roundUp } from "./chart.js";
import { Verdict, accuracy, share } from "./eval_parts.js";
import { count, counted, plain, usd, usdRange, utc } from "./format.js";
import { DataTable, Figure, Section } from "./parts.js";

const { Flex, Stack, Text } = ChakraUI;

const h = React.createElement;

const CHANGES = [
  ["worse", "What got worse", "No case that was right in the accepted runs is wrong now."],
  ["better", "What got better", "No case that was wrong in the accepted runs is right now."],
];

export function History({ data }) {
  const order = [...new Set(data.runs.map(({ run }) => run))].reverse();
  const newest = data.runs.filter(({ run }) => run === data.run);
  const days = order.map((name) => data.runs.find(({ run }) => run === name).sealed_at?.slice(5, 10) ?? "");
  const series = (point) =>
    data.models.map((model) => ({
      name: model,
      points: data.runs
        .filter((run) => run.model === model)
        .map((run) => ({
          x: order.indexOf(run.run),
          ...point(run),
          text: `${model}, ${run.run}: ${accuracy(run)}, ${usd(run.cost_usd)}, ${run.verdict}`,
        }))
        .filter(({ value }) => value !== null)
        .sort((first, second) => first.x - second.x),
    }));
  const lowest = Math.min(1, ...data.runs.map(({ low }) => low ?? 1));
  const highestCost = Math.max(...data.runs.map(({ cost_usd }) => cost_usd ?? 0));
  return h(
    Stack,
    { gap: 6 },
    h(
      Flex,
      { gap: 3, wrap: "wrap", role: "group", "aria-label": "The newest run" },
      newest.map((run) =>
        h(Figure, {
          key: run.model,
          name: run.model,
          value: share(run.accuracy),
          help: h(
            React.Fragment,
            null,
            h(Verdict, { verdict: run.verdict }),
            ` ${accuracy(run)} · ${usd(run.cost_usd)}`,
            run.unanswered ? ` · ${counted(run.unanswered, "answer")} missing` : "",
          ),
        }),
      ),
    ),
    h(Legend, { names: data.models }),
    h(
      Flex,
      { gap: 6, wrap: "wrap" },
      h(Chart, {
        title: "Accuracy, with 95 % intervals",
        labels: days,
        series: series(({ accuracy: value, low, high }) => ({ value, low, high })),
        format: (value) => `${Math.round(100 * value)} %`,
        range: [Math.floor(5 * lowest) / 5, 1],
      }),
      h(Chart, {
        title: "Cost of a run",
        labels: days,
        series: series(({ cost_usd }) => ({ value: cost_usd })),
        format: usd,
        range: [0, roundUp(highestCost)],
      }),
    ),
    CHANGES.map(([kind, title, none]) => h(Changes, { key: kind, title, none, changes: data[kind] })),
    h(Section, { title: "All runs" }, h(Runs, { runs: data.runs })),
  );
}

function Changes({ title, none, changes }) {
  if (!changes.total) return h(Section, { title }, h(Text, { color: "fg.muted" }, none));
  const columns = [
    { key: "case", title: "Case", cell: ({ case_id }) => plain(case_id) },
    { key: "model", title: "Model", cell: ({ model }) => plain(model) },
    {
      key: "before",
      title: "Right before",
      cell: ({ right_before, runs_before }) => `in ${count(right_before)} of ${counted(runs_before, "run")}`,
    },
    { key: "now", title: "Score now", numeric: true, cell: ({ score_now }) => score_now.toFixed(2) },
    {
      key: "prompt",
      title: "Question",
      cell: ({ prompt }) =>
        h(Text, { as: "div", lineClamp: 2, minW: "16rem", overflowWrap: "anywhere" }, plain(prompt ?? "–")),
    },
  ];
  const shown = changes.cases.length;
  return h(
    Section,
    { title: `${title}: ${counted(changes.total, "case")}` },
    h(DataTable, { label: title, columns, rows: changes.cases, rowKey: ({ case_id, model }) => `${model} ${case_id}` }),
    shown < changes.total
      ? h(
          Text,
          { color: "fg.muted", fontSize: "sm" },
          `The first ${count(shown)}. The view "Cases and answers" has all of them.`,
        )
      : null,
  );
}

function Runs({ runs }) {
  const columns = [
    {
      key: "run",
      title: "Run",
      cell: ({ run, sealed_at }) =>
        h(
          Stack,
          { gap: 0 },
          h(Text, null, sealed_at ? utc(sealed_at).slice(0, 16) : "–"),
          h(Text, { fontSize: "xs", color: "fg.muted" }, plain(run)),
        ),
    },
    { key: "model", title: "Model", cell: ({ model }) => plain(model) },
    { key: "accuracy", title: "Accuracy (95 % interval)", numeric: true, cell: accuracy },
    { key: "verdict", title: "Verdict", cell: ({ verdict }) => h(Verdict, { verdict }) },
    { key: "cost", title: "Cost", numeric: true, cell: ({ cost_usd }) => usd(cost_usd) },
    {
      key: "cost per right answer",
      title: "Per right answer",
      numeric: true,
      cell: ({ cost_per_right_usd }) => usd(cost_per_right_usd),
    },
    {
      key: "estimate",
      title: "Estimate",
      numeric: true,
      cell: ({ estimate_usd }) => (estimate_usd ? usdRange(...estimate_usd) : "unknown"),
    },
    { key: "unanswered", title: "Missing answers", numeric: true, cell: ({ unanswered }) => count(unanswered) },
  ];
  return h(DataTable, { label: "All runs", columns, rows: runs, rowKey: ({ run, model }) => `${run} ${model}` });
}
