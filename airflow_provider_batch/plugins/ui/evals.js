// The evals of a DAG: accuracy and cost over time, all answers of a run, and two runs side by side.

import { address, useRead } from "./api.js";
import { CaseMatrix } from "./eval_cases.js";
import { Comparison } from "./eval_comparison.js";
import { History } from "./eval_history.js";
import { RunChoice, StubNotice } from "./eval_parts.js";
import { Choice } from "./jobs.js";
import { Empty, Failure, InternalLink, Loading, Notice, PAGE } from "./parts.js";
import { useQuery } from "./query.js";

const { Flex, Heading, HStack, Link, Stack } = ChakraUI;

const h = React.createElement;

const TABS = [
  ["history", "Over time"],
  ["cases", "Cases and answers"],
  ["comparison", "Two runs"],
];

export function Evals() {
  const { parameters, change } = useQuery();
  const tab = TABS.some(([name]) => name === parameters.get("tab")) ? parameters.get("tab") : "history";
  const { data, error, reload } = useRead(address("evals", { dag_id: parameters.get("dag_id") }), { keep: true });
  const reports = data?.reports ?? [];
  const report = reports.find(({ run_id }) => run_id === parameters.get("run_id")) ?? reports[0];

  const path = (name) => {
    const next = new URLSearchParams({ view: "evals", tab: name });
    for (const kept of ["dag_id", "run_id"]) if (parameters.get(kept)) next.set(kept, parameters.get(kept));
    return `${PAGE}?${next}`;
  };
  const view = { report, reports, parameters, change };

  return h(
    Stack,
    { gap: 5 },
    h(
      Flex,
      { justify: "space-between", align: "baseline", wrap: "wrap", gap: 2 },
      h(Heading, { as: "h1", size: "xl" }, "Evals"),
      h(InternalLink, { to: PAGE }, "All jobs"),
    ),
    error ? h(Failure, { error, reload, stale: Boolean(data) }) : null,
    !data && !error ? h(Loading, { what: "the evals" }) : null,
    data && !report
      ? h(
          Empty,
          { title: "There are no evals yet" },
          "A run of a DAG with EvalReportOperator appears here, such as the example DAG nightly_eval.",
        )
      : null,
    report
      ? h(
          React.Fragment,
          null,
          h(
            Flex,
            { gap: 3, wrap: "wrap", align: "flex-end" },
            h(Choice, {
              label: "DAG",
              value: data.dag_id,
              options: data.dags.map((dag) => [dag, dag]),
              onChange: (dag_id) => change({ dag_id, run_id: "", before_run_id: "" }),
            }),
            tab === "history"
              ? null
              : h(RunChoice, { label: "Run", value: report.run_id, reports, onChange: (run_id) => change({ run_id }) }),
            h(Link, { href: reportAddress(report), color: "fg.info", fontSize: "sm", pb: 2 }, "The report of this run"),
          ),
          h(
            HStack,
            {
              as: "nav",
              "aria-label": "Views of the evals",
              gap: 5,
              borderBottomWidth: "1px",
              borderColor: "border",
              pb: 2,
              wrap: "wrap",
            },
            TABS.map(([name, title]) =>
              h(
                InternalLink,
                {
                  key: name,
                  to: path(name),
                  "aria-current": name === tab ? "page" : undefined,
                  fontWeight: name === tab ? "semibold" : "normal",
                },
                title,
              ),
            ),
          ),
          tab === "history" && data.problem
            ? h(Notice, { status: "warning", title: "The newest report has no answers here" }, data.problem)
            : null,
          tab === "history" && data.eval
            ? h(
                React.Fragment,
                null,
                h(StubNotice, { answers: data.eval.stub_answers }),
                h(History, { ...view, data: data.eval }),
              )
            : null,
          tab === "cases" ? h(CaseMatrix, view) : null,
          tab === "comparison" ? h(Comparison, view) : null,
        )
      : null,
  );
}

function reportAddress({ dag_id, run_id, task_id, map_index }) {
  const parts = [dag_id, task_id, String(map_index)].map(encodeURIComponent);
  return address(`../report/${parts.join("/")}`, { run_id });
}
