// Two runs of a DAG side by side: the figures of each model, and the cases that got better or worse.

import { address, identity, useRead } from "./api.js";
import { Answers, Question, RunChoice, StubNotice, Verdict, accuracy } from "./eval_parts.js";
import { count, counted, plain, usd } from "./format.js";
import { Choice, TextFilter } from "./jobs.js";
import { Announcement, DataTable, Empty, Failure, Loading, Pager } from "./parts.js";

const { Flex, Stack } = ChakraUI;

const h = React.createElement;

const PAGE_SIZE = 20;
const KINDS = [
  ["changed", "Better or worse"],
  ["worse", "Worse"],
  ["better", "Better"],
  ["same", "Same"],
  ["unanswered", "Answered in one run at most"],
];

export function Comparison({ report, reports, parameters, change }) {
  const others = reports.filter(
    ({ run_id, task_id, map_index }) =>
      run_id !== report.run_id && task_id === report.task_id && map_index === report.map_index,
  );
  // by default the run before, and for the oldest run the one after
  const fallback = others.find(({ written_at }) => written_at < report.written_at) ?? others.at(-1);
  const before = others.find(({ run_id }) => run_id === parameters.get("before_run_id")) ?? fallback;
  const filters = Object.fromEntries(["text", "model"].map((name) => [name, parameters.get(name) ?? ""]));
  const only = KINDS.some(([kind]) => kind === parameters.get("only")) ? parameters.get("only") : "changed";
  const offset = Math.max(0, Number(parameters.get("offset")) || 0);
  const url = before
    ? address("evals/comparison", {
        ...identity(report),
        before_run_id: before.run_id,
        ...filters,
        only,
        offset,
        limit: PAGE_SIZE,
      })
    : null;
  const { data, error, reload } = useRead(url, { keep: true });
  if (!before)
    return h(Empty, { title: "There is only one run" }, "Two runs can be compared once a second one has a report.");
  return h(
    Stack,
    { gap: 4 },
    h(
      Flex,
      {
        as: "form",
        role: "search",
        "aria-label": "Search the cases",
        gap: 3,
        wrap: "wrap",
        align: "flex-end",
        onSubmit: (event) => event.preventDefault(),
      },
      h(RunChoice, {
        label: "Compared with",
        value: before.run_id,
        reports: others,
        onChange: (before_run_id) => change({ before_run_id }),
      }),
      h(TextFilter, {
        value: filters.text,
        placeholder: "case, question or answer",
        onChange: (text) => change({ text }, { replace: true }),
      }),
      h(Choice, { label: "Show", value: only, options: KINDS, onChange: (kind) => change({ only: kind }) }),
      h(Choice, { label: "Model", value: filters.model, values: data?.models, onChange: (model) => change({ model }) }),
    ),
    error ? h(Failure, { error, reload, stale: Boolean(data) }) : null,
    !data && !error ? h(Loading, { what: "the runs" }) : null,
    data
      ? h(
          React.Fragment,
          null,
          h(StubNotice, { answers: data.before.stub_answers + data.now.stub_answers }),
          h(Figures, { data }),
          h(Announcement, null, `${counted(data.total, "case")} found`),
          data.cases.length
            ? h(Cases, { cases: data.cases })
            : h(Empty, { title: "No case fits" }, "The two runs do not differ in this, or the search finds nothing."),
          h(Pager, {
            offset,
            limit: PAGE_SIZE,
            shown: data.cases.length,
            total: data.total,
            what: "cases",
            onOffset: (next) => change({ offset: next ? String(next) : "" }),
          }),
        )
      : null,
  );
}

function Figures({ data }) {
  const figure = (run, write) => (run ? write(run) : "not in this run");
  const columns = [
    { key: "model", title: "Model", cell: (model) => plain(model) },
    {
      key: "before",
      title: "Accuracy before",
      numeric: true,
      cell: (model) => figure(data.before.models[model], accuracy),
    },
    {
      key: "now",
      title: "Accuracy of this run",
      numeric: true,
      cell: (model) => figure(data.now.models[model], accuracy),
    },
    {
      key: "cost_before",
      title: "Cost before",
      numeric: true,
      cell: (model) => figure(data.before.models[model], ({ cost_usd }) => usd(cost_usd)),
    },
    {
      key: "cost_now",
      title: "Cost of this run",
      numeric: true,
      cell: (model) => figure(data.now.models[model], ({ cost_usd }) => usd(cost_usd)),
    },
    ...["better", "worse", "same", "unanswered"].map((kind) => ({
      key: kind,
      title: kind === "unanswered" ? "No answer" : kind[0].toUpperCase() + kind.slice(1),
      numeric: true,
      cell: (model) => count(data.counts[model][kind]),
    })),
  ];
  return h(DataTable, { label: "Figures of both runs", columns, rows: data.models, rowKey: (model) => model });
}

function Cases({ cases }) {
  const columns = [
    { key: "case", title: "Case", cell: Question },
    {
      key: "model",
      title: "Model",
      cell: ({ model, change }) =>
        h(Stack, { gap: 1, align: "flex-start" }, plain(model), h(Verdict, { verdict: change })),
    },
    {
      key: "before",
      title: "Before",
      cell: ({ before, score_before }) => h(Answers, { answers: before, score: score_before }),
    },
    { key: "now", title: "This run", cell: ({ now, score_now }) => h(Answers, { answers: now, score: score_now }) },
  ];
  return h(DataTable, {
    label: "Cases of both runs",
    columns,
    rows: cases,
    rowKey: ({ case_id, model }) => `${model} ${case_id}`,
  });
}
