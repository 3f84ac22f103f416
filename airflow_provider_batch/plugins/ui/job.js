// One job: what happens next, where it stands, what it costs, its batches, errors and answers.

import { Actions } from "./actions.js";
import { Answers } from "./answers.js";
import { INTERVAL_MS, address, identity, useRead } from "./api.js";
import { Batches } from "./batches.js";
import { count, counted, plain, usd, usdRange, utc } from "./format.js";
import { Age, Announcement, Bar, DataTable, Failure, Figure, InternalLink, Loading, Notice } from "./parts.js";
import { PAGE, Section, StateBadge, Verbatim, airflowPath, jobName } from "./parts.js";

const { Box, Button, Collapsible, Flex, Heading, HStack, Stack, Text } = ChakraUI;

const h = React.createElement;

/** The states of a task that has ended. */
const ENDED_STATES = new Set(["success", "failed", "skipped", "upstream_failed", "removed"]);
/** How often a job that has ended is read again, in milliseconds: a person may have cleared one of its tasks. */
const IDLE_INTERVAL_MS = 60_000;

/** The page of one job. `job` identifies it. */
export function JobPage({ job }) {
  // a task without a state is going to start
  const isActive = ({ path, job: summary }) => summary.live > 0 || path.some(({ state }) => !ENDED_STATES.has(state));
  const read = useRead(address("job", identity(job)), {
    pace: (data) => (isActive(data) ? INTERVAL_MS : IDLE_INTERVAL_MS),
  });
  const { data, error, reload } = read;
  return h(
    Stack,
    { gap: 6 },
    h(Title, { job, summary: data?.job }),
    error ? h(Failure, { error, reload, stale: Boolean(data) }) : null,
    !data && !error ? h(Loading, { what: "the job" }) : null,
    // the job of another task than its submit task is read under the name of that one, too
    data ? h(Details, { job: identity(data.job), data, isActive: isActive(data), reload }) : null,
  );
}

function Title({ job, summary }) {
  const run = { dag_id: job.dag_id, run_id: job.run_id };
  return h(
    Stack,
    { gap: 1 },
    h(
      HStack,
      { as: "nav", "aria-label": "Breadcrumb", gap: 2, fontSize: "sm", wrap: "wrap", color: "fg.muted" },
      h(InternalLink, { to: PAGE }, "All jobs"),
      "/",
      h(InternalLink, { to: airflowPath({ dag_id: job.dag_id }), overflowWrap: "anywhere" }, job.dag_id),
      "/",
      h(InternalLink, { to: airflowPath(run), overflowWrap: "anywhere" }, job.run_id),
    ),
    h(
      Flex,
      { gap: 3, align: "center", wrap: "wrap" },
      h(Heading, { as: "h1", size: "xl", overflowWrap: "anywhere" }, jobName(job)),
      summary ? h(StateBadge, { state: summary.phase }) : null,
    ),
    summary ? h(Text, { color: "fg.muted", overflowWrap: "anywhere" }, sentence(summary.state)) : null,
  );
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

function Details({ job, data, isActive, reload }) {
  const summary = data.job;
  const live = useRead(summary.live ? address("live", identity(job)) : null, { pace: () => INTERVAL_MS });
  return h(
    React.Fragment,
    null,
    h(Announcement, null, `${jobName(job)}: ${summary.state}`),
    h(
      Stack,
      { gap: 3 },
      data.next
        ? h(Notice, { status: summary.phase === "held" ? "warning" : "info", title: "What happens next" }, data.next)
        : null,
      data.approval ? h(InternalLink, { to: data.approval }, "Open the approval that this job waits for") : null,
      // what is possible depends on the record and on the states of the tasks
      h(Actions, {
        job,
        version: [summary.phase, summary.last_at, ...data.path.map(({ state }) => state)].join(" "),
        onDone: reload,
      }),
    ),
    h(Path, { path: data.path, job }),
    h(Progress, { job, summary, live }),
    h(Money, { summary, models: data.models }),
    h(Errors, { errors: data.errors, problem: data.errors_problem, job, outcomes: summary.outcomes }),
    h(Answers, { job, isActive }),
    h(Models, { models: data.models }),
    h(Batches, { summary, live, hidden: data.more_shards }),
    data.request ? h(FirstRequest, { request: data.request }) : null,
    h(Facts, { summary }),
  );
}

const STEPS = { submit: "Submit", approve: "Approve", wait: "Wait", land: "Land" };

/** The tasks of the job in their order, and where each stands. */
function Path({ path, job }) {
  return h(
    Section,
    { title: "Path" },
    h(
      Flex,
      {
        as: "ol",
        gap: 2,
        listStyleType: "none",
        p: 0,
        m: 0,
        direction: { base: "column", md: "row" },
        align: { base: "stretch", md: "center" },
      },
      path.flatMap((step, index) => [
        index
          ? h(Box, { as: "li", key: `arrow ${index}`, "aria-hidden": true, color: "fg.muted", hideBelow: "md" }, "→")
          : null,
        h(
          Stack,
          {
            as: "li",
            key: `${step.task_id} ${step.map_index}`,
            gap: 1,
            flex: "1",
            minW: 0,
            p: 3,
            borderWidth: "1px",
            borderColor: "border",
            borderRadius: "md",
          },
          h(
            HStack,
            { justify: "space-between", gap: 2 },
            h(Text, { fontWeight: "semibold" }, STEPS[step.role] ?? step.role),
            h(StateBadge, { state: step.state ?? "not started" }),
          ),
          h(
            InternalLink,
            {
              to: airflowPath({ ...job, task_id: step.task_id, map_index: step.map_index ?? -1 }),
              fontSize: "sm",
              overflowWrap: "anywhere",
            },
            step.task_id,
          ),
          h(
            Text,
            { fontSize: "xs", color: "fg.muted" },
            [step.state_text, step.try_number > 1 ? `try ${step.try_number}` : ""].filter(Boolean).join(" · "),
            step.state && step.start && !step.state && step.end
              ? [" · started ", h(Age, { key: "start", time: step.start })]
              : null,
            step.state && step.end ? [" · ended ", h(Age, { key: "end", time: step.end })] : null,
          ),
        ),
      ]),
    ),
  );
}

function Progress({ job, summary, live }) {
  const outcomes = Object.entries(summary.outcomes);
  return h(
    Section,
    { title: "Progress" },
    h(Bar, { ...rowCounts(summary, live.data), label: `Progress of ${jobName(job)}`, size: "4" }),
    live.data?.problem
      ? h(Notice, { status: "warning", title: "The provider's counts are not complete" }, live.data.problem)
      : null,
    live.error ? h(Failure, { error: live.error, reload: live.reload }) : null,
    outcomes.length
      ? h(
          Flex,
          { as: "ul", gap: 2, wrap: "wrap", listStyleType: "none", p: 0, m: 0, "aria-label": "Rows by outcome" },
          outcomes.map(([outcome, rows]) =>
            h("li", { key: outcome }, h(StateBadge, { state: outcome, text: `${count(rows)} ${outcome}` })),
          ),
        )
      : null,
    h(
      Text,
      { fontSize: "sm", color: "fg.muted" },
      rowsInWords(summary),
      summary.deadline && !summary.landed
        ? [" · deadline ", h(Age, { key: "deadline", time: summary.deadline })]
        : null,
      summary.settled_at ? [" · all answers collected ", h(Age, { key: "settled", time: summary.settled_at })] : null,
    ),
  );
}

/**
 * Return the numbers of rows that are done, failed and waiting: those of the ledger, which learns of the answers of a
 * batch when it has ended, and those that the provider counts in the batches that run.
 */
function rowCounts({ outcomes, requests, sent, landed }, live) {
  const { succeeded = 0, pending = 0, ...others } = outcomes;
  const sum = (numbers) => numbers.reduce((total, number) => total + (number ?? 0), 0);
  const batches = live?.batches ?? [];
  const done = succeeded + sum(batches.map(({ completed }) => completed));
  const failed = sum(Object.values(others)) + sum(batches.map((batch) => batch.failed));
  const rows = landed ? requests : sent;
  return { done, failed, waiting: Math.max(0, rows - done - failed), rows };
}

function rowsInWords(summary) {
  const parts = [`${count(summary.sent)} sent`];
  if (summary.duplicates) parts.push(counted(summary.duplicates, "duplicate"));
  if (summary.reused) parts.push(`${count(summary.reused)} reused from ${summary.reuse_from}`);
  if (summary.invalid) parts.push(`${count(summary.invalid)} with invalid input`);
  return `${counted(summary.requests, "row")}: ${parts.join(", ")}`;
}

function Money({ summary, models }) {
  const { landed, estimate, running_estimate: running } = summary;
  const isKnown = models.length > 0 && models.every(({ cost_usd: cost }) => cost !== null);
  const cost =
    summary.cost_usd ?? (isKnown && !landed ? models.reduce((sum, { cost_usd: cost }) => sum + cost, 0) : null);
  const standard = landed?.standard_cost_usd;
  const saved = standard && summary.cost_usd ? Number(standard) - Number(summary.cost_usd) : null;
  return h(
    Section,
    { title: "Cost" },
    h(
      Flex,
      { gap: 3, wrap: "wrap" },
      h(Figure, {
        name: landed ? "Cost" : "Cost so far",
        value: usd(cost),
        help: landed?.retried
          ? `${usd(landed.retried_cost_usd)} of it for ${counted(landed.retried, "retry", "retries")}`
          : "",
      }),
      h(Figure, {
        name: "Estimate",
        value: usdRange(estimate.low_usd, estimate.high_usd),
        help:
          estimate.likely_usd === null || estimate.likely_usd === undefined
            ? "before the answers"
            : `most likely ${usd(estimate.likely_usd)}`,
      }),
      running
        ? h(Figure, { name: "Estimate by the answers so far", value: usdRange(running.low_usd, running.high_usd) })
        : null,
      h(Figure, {
        name: "Synchronous price",
        value: usd(standard),
        help: saved > 0 ? `saved ${usd(saved)}` : landed ? "" : "known once the rows have landed",
      }),
    ),
    summary.paid_twice
      ? h(
          Notice,
          { status: "error", title: "Paid twice" },
          `${counted(summary.paid_twice, "request")} had an answer in more than one batch.`,
        )
      : null,
    summary.lost_requests
      ? h(
          Notice,
          { status: "warning" },
          `${counted(summary.lost_requests, "request")} was being sent when a worker died. The cost does not include it.`,
        )
      : null,
  );
}

/** The most frequent errors, each with an example. */
function Errors({ errors, problem, job, outcomes }) {
  const failed = Object.entries(outcomes).some(
    ([outcome, rows]) => rows && outcome !== "succeeded" && outcome !== "pending",
  );
  if (!errors.length && !failed) return null;
  return h(
    Section,
    {
      title: "Rows without a usable answer",
      aside: h(
        Button,
        { asChild: true, size: "sm", variant: "outline" },
        h("a", { href: address("failed_rows", identity(job)), download: "" }, "Download these rows (CSV)"),
      ),
    },
    problem ? h(Notice, { status: "warning", title: "Not every error can be shown" }, problem) : null,
    h(DataTable, {
      label: "Rows without a usable answer, by message",
      rows: errors,
      columns: [
        { key: "rows", title: "Rows", numeric: true, cell: Rows },
        {
          key: "outcome",
          title: "Outcome",
          cell: ({ outcome }) => (outcome ? h(StateBadge, { state: outcome }) : "–"),
        },
        {
          key: "message",
          title: "Message",
          cell: ({ message }) =>
            h(
              Box,
              {
                dir: "auto",
                whiteSpace: "pre-wrap",
                overflowWrap: "anywhere",
                minW: "14rem",
                maxH: "10rem",
                overflow: "hidden",
              },
              plain(message) || "no message",
            ),
        },
        {
          key: "custom_id",
          title: "For example",
          cell: ({ custom_id: id }) =>
            h(Box, { as: "code", dir: "auto", fontSize: "xs", overflowWrap: "anywhere" }, plain(id) || "–"),
        },
      ],
    }),
  );
}

function Rows({ rows, retrying }) {
  return h(
    React.Fragment,
    null,
    count(rows),
    retrying
      ? h(Text, { fontSize: "xs", color: "fg.muted", whiteSpace: "nowrap" }, `${count(retrying)} to be retried`)
      : null,
  );
}

function Models({ models }) {
  if (!models.length) return null;
  return h(
    Section,
    { title: "Tokens and cost by model" },
    h(DataTable, {
      label: "Tokens and cost by model",
      rows: models,
      rowKey: ({ model }) => model,
      columns: [
        { key: "model", title: "Model", cell: ({ model }) => model },
        { key: "requests", title: "Requests", numeric: true, cell: ({ requests }) => count(requests) },
        { key: "input", title: "Input tokens", numeric: true, cell: ({ input_tokens: tokens }) => count(tokens) },
        { key: "output", title: "Output tokens", numeric: true, cell: ({ output_tokens: tokens }) => count(tokens) },
        { key: "cost", title: "Cost", numeric: true, cell: ({ cost_usd: cost }) => usd(cost) },
      ],
    }),
  );
}

function FirstRequest({ request }) {
  return h(
    Collapsible.Root,
    null,
    h(
      Section,
      {
        title: "First request",
        aside: h(Collapsible.Trigger, { asChild: true }, h(Button, { size: "xs", variant: "outline" }, "Show or hide")),
      },
      h(
        Collapsible.Content,
        null,
        h(
          Text,
          { fontSize: "sm", color: "fg.muted", mb: 1 },
          `custom_id ${plain(request.custom_id)}${request.cut ? " · cut at 20 kB" : ""}`,
        ),
        h(Verbatim, { text: request.text, label: "Body of the first request", maxH: "24rem" }),
      ),
    ),
  );
}

/** What else is recorded about the job. */
function Facts({ summary }) {
  const facts = [
    ["Job", `${summary.job_uid}${summary.generation > 1 ? `, generation ${summary.generation}` : ""}`],
    ["Sent to", `${summary.endpoint}, connection ${summary.connection}`],
    ["Sealed", utc(summary.sealed_at)],
    ["Last event", utc(summary.last_at)],
    ["Deadline", summary.deadline ? utc(summary.deadline) : "set when the wait starts"],
    ["Retry rounds", count(summary.retry_rounds.length)],
    [
      "Landed",
      summary.landed
        ? `${summary.landed.table ?? summary.landed.file ?? "nowhere"} at ${utc(summary.landed.time)}`
        : "not yet",
    ],
    ["Folder", summary.folder],
  ];
  return h(
    Section,
    { title: "Record" },
    h(
      Box,
      {
        as: "dl",
        display: "grid",
        gridTemplateColumns: { base: "1fr", md: "10rem 1fr" },
        columnGap: 4,
        rowGap: 1,
        fontSize: "sm",
      },
      facts.flatMap(([name, value]) => [
        h(Box, { as: "dt", key: name, color: "fg.muted" }, name),
        h(Box, { as: "dd", key: `${name} value`, m: 0, overflowWrap: "anywhere" }, value),
      ]),
    ),
  );
}
