// All jobs, or those of one run: totals, filters, and a table (cards on a narrow screen) that keeps itself current.

import { INTERVAL_MS, address, identityText, useRead } from "./api.js";
import { count, counted, plain, usd, usdRange, utc } from "./format.js";
import {
  Age,
  Announcement,
  Bar,
  DataTable,
  Empty,
  Failure,
  Figure,
  InternalLink,
  Loading,
  Pager,
  StateBadge,
} from "./parts.js";
import { airflowPath, jobName, jobPath, useNarrow } from "./parts.js";
import { useQuery } from "./query.js";

const { Box, Button, Field, Flex, Heading, HStack, Input, NativeSelect, Stack, Text } = ChakraUI;
const { useEffect, useRef, useState } = React;

const h = React.createElement;

const PAGE_SIZE = 25;
/** How often the list is read again while nothing runs, in milliseconds: a new job may have started. */
const IDLE_INTERVAL_MS = 60_000;
const FILTERS = ["state", "dag_id", "model", "text", "since"];
const PERIODS = [
  ["1", "Last 24 hours"],
  ["7", "Last 7 days"],
  ["30", "Last 30 days"],
  ["", "All time"],
];
/** The orders of the list on a narrow screen, which has no column headers to press. */
const ORDERS = [
  ["age desc", "Newest first"],
  ["age asc", "Oldest first"],
  ["cost desc", "Highest cost first"],
  ["rows desc", "Most rows first"],
  ["state asc", "By state"],
  ["dag asc", "By DAG"],
];
const ENDED = new Set(["landed", "failed", "skipped"]);

/** Whether the rows of a job may still change. */
export function isRunning(job) {
  return !ENDED.has(job.state);
}

/** The list of jobs. `run` limits it to one DAG run. */
export function JobList({ run }) {
  const { parameters, change } = useQuery();
  const filters = Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name) ?? ""]));
  const offset = Math.max(0, Number(parameters.get("offset")) || 0);
  const sort = parameters.get("sort") ?? "age";
  const order = parameters.get("order") ?? "desc"; // by age: newest first

  const { data, error, time, reload } = useRead(
    address("jobs", { ...filters, since: sinceDay(filters.since), ...run, sort, order, offset, limit: PAGE_SIZE }),
    { pace: ({ jobs }) => (jobs.some(isRunning) ? INTERVAL_MS : IDLE_INTERVAL_MS), keep: true },
  );
  const jobs = useProgress(data?.jobs ?? []);
  const isFiltered = FILTERS.some((name) => filters[name]);

  return h(
    Stack,
    { gap: 5 },
    h(
      Flex,
      { justify: "space-between", align: "baseline", wrap: "wrap", gap: 2 },
      h(Heading, { as: "h1", size: "xl" }, run ? "LLM batch jobs of this run" : "LLM batch jobs"),
      h(
        HStack,
        { gap: 4 },
        run ? null : h(InternalLink, { to: "?view=evals" }, "Evals"),
        time ? h(Text, { fontSize: "xs", color: "fg.muted" }, "Updated ", utc(time).slice(11)) : null,
      ),
    ),
    error ? h(Failure, { error, reload, stale: Boolean(data) }) : null,
    !data && !error ? h(Loading, { what: "the jobs" }) : null,
    data
      ? h(
          React.Fragment,
          null,
          run ? null : h(Totals, { totals: data.totals, period: filters.since }),
          run ? null : h(Filters, { filters, data, change, isFiltered, sorting: `${sort} ${order}` }),
          h(Announcement, null, `${counted(data.total, "job")} found`),
          jobs.length
            ? h(Jobs, { jobs, run, sort, order, change })
            : h(NoJobs, {
                run,
                isFiltered,
                clear: () => change(Object.fromEntries(FILTERS.map((name) => [name, ""]))),
              }),
          h(Pager, {
            offset,
            limit: PAGE_SIZE,
            shown: jobs.length,
            total: data.total,
            what: "jobs",
            onOffset: (next) => change({ offset: next ? String(next) : "" }),
          }),
        )
      : null,
  );
}

/** Return the first moment of a period of so many days, rounded to the hour so that the address stays the same. */
function sinceDay(days) {
  if (!/^\d{1,4}$/.test(days)) return "";
  const hour = 3_600_000;
  return new Date(Math.floor(Date.now() / hour) * hour - Number(days) * 24 * hour).toISOString();
}

/** Return the jobs with the live counts of those that run. */
function useProgress(jobs) {
  const running = jobs.filter(isRunning);
  const url = running.length ? address("progress", { job: running.map(identityText) }) : null;
  const { data } = useRead(url, { pace: () => INTERVAL_MS, keep: true });
  const newest = new Map((data?.jobs ?? []).map((progress) => [identityText(progress), progress]));
  return jobs.map((job) => {
    const progress = isRunning(job) ? newest.get(identityText(job)) : null;
    if (!progress) return job;
    const known = Object.entries(progress).filter(([, value]) => value !== null && value !== undefined);
    return { ...job, ...Object.fromEntries(known) };
  });
}

function Totals({ totals, period }) {
  const name = (PERIODS.find(([days]) => days === period) ?? PERIODS.at(-1))[1].toLowerCase();
  return h(
    Flex,
    { gap: 3, wrap: "wrap", role: "group", "aria-label": `Totals, ${name}` },
    h(Figure, { name: "Jobs", value: count(totals.jobs), help: name }),
    h(Figure, { name: "Rows", value: count(totals.rows), help: name }),
    h(Figure, { name: "Cost", value: usd(totals.cost_usd), help: "of the jobs whose cost is known" }),
    h(Figure, { name: "Saved", value: usd(totals.saved_usd), help: "against the synchronous price" }),
  );
}

function Filters({ filters, data, change, isFiltered, sorting }) {
  const isNarrow = useNarrow();
  const sortBy = (choice) => {
    const [sort, order] = choice.split(" ");
    change({ sort, order });
  };
  return h(
    Flex,
    {
      as: "form",
      role: "search",
      "aria-label": "Filter jobs",
      gap: 3,
      wrap: "wrap",
      align: "flex-end",
      onSubmit: (event) => event.preventDefault(),
    },
    h(TextFilter, {
      value: filters.text,
      placeholder: "DAG, task or run",
      onChange: (text) => change({ text }, { replace: true }),
    }),
    h(Choice, { label: "State", value: filters.state, values: data.states, onChange: (state) => change({ state }) }),
    h(Choice, { label: "DAG", value: filters.dag_id, values: data.dags, onChange: (dag_id) => change({ dag_id }) }),
    h(Choice, { label: "Model", value: filters.model, values: data.models, onChange: (model) => change({ model }) }),
    h(Choice, { label: "Period", value: filters.since, options: PERIODS, onChange: (since) => change({ since }) }),
    isNarrow ? h(Choice, { label: "Order", value: sorting, options: ORDERS, onChange: sortBy }) : null,
    isFiltered
      ? h(
          Button,
          {
            size: "sm",
            variant: "ghost",
            onClick: () => change(Object.fromEntries(FILTERS.map((name) => [name, ""]))),
          },
          "Clear filters",
        )
      : null,
  );
}

/** A text field that passes its value on when nothing was typed for a moment. */
export function TextFilter({ value, onChange, placeholder }) {
  const [text, setText] = useState(value);
  const sent = useRef(value);
  const newest = useRef(onChange); // an earlier one would undo what another filter changed meanwhile
  newest.current = onChange;
  useEffect(() => {
    if (value !== sent.current) setText(value); // changed by the back button or by *Clear filters*
    sent.current = value;
  }, [value]);
  useEffect(() => {
    if (text === sent.current) return undefined;
    const timer = setTimeout(() => {
      sent.current = text;
      newest.current(text);
    }, 300);
    return () => clearTimeout(timer);
  }, [text]);
  return h(
    Field.Root,
    { width: { base: "100%", md: "18rem" } },
    h(Field.Label, null, "Search"),
    h(Input, {
      size: "sm",
      type: "search",
      placeholder,
      value: text,
      onChange: (event) => setText(event.target.value),
    }),
  );
}

/** A choice among values, or among options `[value, name]`. */
export function Choice({ label, value, values = [], options, onChange }) {
  const choices = options ?? [["", "All"], ...values.map((item) => [item, item])];
  const isListed = choices.some(([item]) => item === value);
  return h(
    Field.Root,
    { width: { base: "calc(50% - 6px)", md: "11rem" } },
    h(Field.Label, null, label),
    h(
      NativeSelect.Root,
      { size: "sm" },
      h(
        NativeSelect.Field,
        { value, onChange: (event) => onChange(event.target.value) },
        (isListed ? choices : [...choices, [value, plain(value)]]).map(([item, name]) =>
          h("option", { key: item, value: item }, name),
        ),
      ),
      h(NativeSelect.Indicator),
    ),
  );
}

function Jobs({ jobs, run, sort, order, change }) {
  const isNarrow = useNarrow();
  if (isNarrow) {
    return h(
      Stack,
      { as: "ul", gap: 3, listStyleType: "none", p: 0, m: 0, "aria-label": "Jobs" },
      jobs.map((job) => h(JobCard, { key: identityText(job), job })),
    );
  }
  /** Sort by a column; a second press turns the order. */
  const sortable = (key, title) => {
    const isSorted = sort === key;
    const first = key === "dag" || key === "state" ? "asc" : "desc";
    const next = isSorted ? (order === "asc" ? "desc" : "asc") : first;
    return {
      key,
      title,
      sort: isSorted ? (order === "asc" ? "ascending" : "descending") : "none",
      header: h(
        Button,
        {
          size: "sm",
          variant: "plain",
          px: 0,
          height: "auto",
          minH: "6",
          gap: 1,
          color: "fg",
          fontWeight: "medium",
          onClick: () => change({ sort: key, order: next }),
        },
        title,
        h("span", { "aria-hidden": true }, isSorted ? (order === "asc" ? "↑" : "↓") : "↕"),
      ),
    };
  };
  return h(DataTable, {
    label: "Jobs",
    rows: jobs,
    rowKey: identityText,
    columns: [
      { ...sortable("dag", "Job"), cell: (job) => h(JobTitle, { job, run }) },
      { ...sortable("state", "State"), cell: (job) => h(State, { job }) },
      { key: "progress", title: "Progress", width: "14rem", cell: (job) => h(Progress, { job }) },
      { ...sortable("rows", "Rows"), numeric: true, cell: (job) => count(job.rows) },
      { key: "models", title: "Model", cell: (job) => h(Models, { job }) },
      { ...sortable("age", "Started"), cell: (job) => h(Times, { job }) },
      { ...sortable("cost", "Cost"), numeric: true, cell: (job) => h(Cost, { job }) },
      { key: "attempts", title: "Attempts", numeric: true, cell: (job) => job.attempts ?? "–" },
    ],
  });
}

function JobTitle({ job, run }) {
  return h(
    Stack,
    { gap: 0, maxW: "22rem" },
    h(InternalLink, { to: jobPath(job), fontWeight: "semibold", overflowWrap: "anywhere" }, jobName(job)),
    run
      ? null
      : h(
          InternalLink,
          {
            to: airflowPath({ dag_id: job.dag_id, run_id: job.run_id }),
            color: "fg.muted",
            fontSize: "xs",
            overflowWrap: "anywhere",
          },
          job.run_id,
        ),
  );
}

function State({ job }) {
  return h(
    Stack,
    { gap: 1, maxW: "18rem", align: "flex-start" },
    h(StateBadge, { state: job.state }),
    job.state_text && job.state_text !== job.state
      ? h(
          Text,
          { fontSize: "xs", color: "fg.muted", overflowWrap: "anywhere", lineClamp: 3, title: job.state_text },
          job.state_text,
        )
      : null,
    job.problem ? h(Text, { fontSize: "xs", color: "fg.warning", overflowWrap: "anywhere" }, job.problem) : null,
  );
}

function Progress({ job }) {
  return h(Bar, { ...job, label: `Progress of ${jobName(job)}, run ${job.run_id}` });
}

function Models({ job }) {
  return h(Box, { overflowWrap: "anywhere", maxW: "12rem" }, job.models.join(", ") || "–");
}

function Times({ job }) {
  const isOpen = isRunning(job);
  return h(
    Stack,
    { gap: 0, whiteSpace: "nowrap" },
    h(Age, { time: job.started_at }),
    isOpen && job.expected_end
      ? h(Text, { as: "span", fontSize: "xs", color: "fg.muted" }, "ends ", h(Age, { time: job.expected_end }))
      : null,
    isOpen && !job.expected_end && job.deadline
      ? h(Text, { as: "span", fontSize: "xs", color: "fg.muted" }, "deadline ", h(Age, { time: job.deadline }))
      : null,
  );
}

function Cost({ job }) {
  const hasEstimate = job.estimate_low_usd !== null && job.estimate_low_usd !== undefined;
  return h(
    Stack,
    { gap: 0, align: "flex-end", whiteSpace: "nowrap" },
    h("span", null, usd(job.cost_usd)),
    hasEstimate
      ? h(
          Text,
          { as: "span", fontSize: "xs", color: "fg.muted" },
          `estimate ${usdRange(job.estimate_low_usd, job.estimate_high_usd)}`,
        )
      : null,
    job.saved_usd > 0
      ? h(
          Text,
          {
            as: "span",
            fontSize: "xs",
            color: "fg.success",
            title: `${usd(job.standard_cost_usd)} at the synchronous price`,
          },
          `saved ${usd(job.saved_usd)}`,
        )
      : null,
  );
}

function JobCard({ job }) {
  return h(
    Stack,
    { as: "li", gap: 2, p: 3, borderWidth: "1px", borderColor: "border", borderRadius: "md" },
    h(JobTitle, { job }),
    h(State, { job }),
    h(Progress, { job }),
    h(HStack, { justify: "space-between", align: "flex-start", fontSize: "sm" }, h(Times, { job }), h(Cost, { job })),
    h(
      Text,
      { fontSize: "xs", color: "fg.muted", overflowWrap: "anywhere" },
      `${counted(job.rows, "row")} · ${job.models.join(", ") || "model unknown"}`,
    ),
  );
}

function NoJobs({ run, isFiltered, clear }) {
  if (run)
    return h(
      Empty,
      { title: "This run has no batch job" },
      "A job appears here when its submit task starts. DAGs without such a task never have one.",
    );
  if (!isFiltered) {
    return h(
      Empty,
      { title: "No jobs yet" },
      h(
        Text,
        null,
        "A job appears here when a task with BatchSubmitOperator, or a batch_job group, has started. Only jobs of DAGs that you may read are listed.",
      ),
    );
  }
  return h(
    Empty,
    { title: "No job matches these filters" },
    h(Button, { size: "sm", variant: "outline", mt: 2, onClick: clear }, "Clear filters"),
  );
}
