// The matrix of a run: a row for each case, a column for each model, and every answer. It can be searched.

import { address, identity, useRead } from "./api.js";
import { Answers, Question } from "./eval_parts.js";
import { count, counted } from "./format.js";
import { Choice, TextFilter } from "./jobs.js";
import { Announcement, DataTable, Empty, Failure, Loading, Pager } from "./parts.js";

const { Flex, Stack, Text } = ChakraUI;

const h = React.createElement;

const PAGE_SIZE = 20;
const KINDS = [
  ["", "All cases"],
  ["wrong", "Wrong answers"],
  ["worse", "Got worse"],
  ["better", "Got better"],
  ["unanswered", "No answer"],
];

export function CaseMatrix({ report, parameters, change }) {
  const filters = Object.fromEntries(["text", "only", "model"].map((name) => [name, parameters.get(name) ?? ""]));
  const only = KINDS.some(([kind]) => kind === filters.only) ? filters.only : "";
  const offset = Math.max(0, Number(parameters.get("offset")) || 0);
  const { data, error, reload } = useRead(
    address("evals/cases", { ...identity(report), ...filters, only, offset, limit: PAGE_SIZE }),
    { keep: true },
  );
  const columns = [
    { key: "case", title: "Case", cell: Question },
    ...(data?.models ?? []).map((model) => ({
      key: `model ${model}`,
      title: model,
      cell: ({ models }) => h(Answers, models[model]),
    })),
  ];
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
      h(TextFilter, {
        value: filters.text,
        placeholder: "case, question, answer or tag",
        onChange: (text) => change({ text }, { replace: true }),
      }),
      h(Choice, { label: "Show", value: only, options: KINDS, onChange: (kind) => change({ only: kind }) }),
      h(Choice, { label: "Model", value: filters.model, values: data?.models, onChange: (model) => change({ model }) }),
    ),
    error ? h(Failure, { error, reload, stale: Boolean(data) }) : null,
    !data && !error ? h(Loading, { what: "the cases" }) : null,
    data
      ? h(
          React.Fragment,
          null,
          h(Announcement, null, `${counted(data.total, "case")} found`),
          data.kept < data.cases_total
            ? h(
                Text,
                { color: "fg.muted", fontSize: "sm" },
                `The first ${count(data.kept)} of ${counted(data.cases_total, "case")} are kept here. The table of answers has all.`,
              )
            : null,
          data.cases.length
            ? h(DataTable, { label: "Cases and answers", columns, rows: data.cases, rowKey: ({ case_id }) => case_id })
            : h(Empty, { title: "No case fits" }, "Change the search, or show all cases."),
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
