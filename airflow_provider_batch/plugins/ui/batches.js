// The batches of a job, grouped by state and collapsed, because a large job has hundreds. What the provider counts right
// now is asked for the batches that run.

import { count, counted, plain } from "./format.js";
import { Age, Bar, DataTable, Pager, Section, StateBadge } from "./parts.js";

const { Box, Button, Collapsible, HStack, Link, Stack, Text } = ChakraUI;
const { useState } = React;

const h = React.createElement;

const PAGE_SIZE = 20;
const OPENAI_BATCHES = "https://platform.openai.com/batches";

/**
 * All shards and their submissions.
 *
 * @param live what was read from the provider about the batches that run.
 * @param hidden the number of shards that `summary` leaves out.
 */
export function Batches({ summary, live, hidden }) {
  const byId = new Map((live.data?.batches ?? []).map((batch) => [batch.batch_id, batch]));
  const batchUrl = providerPage(live.data?.batch_url);
  const shards = summary.shards.map((shard) => describe(shard, byId, batchUrl));
  // those that have not ended come first
  shards.sort((one, other) => Number(one.isSettled) - Number(other.isSettled));
  const groups = Map.groupBy(shards, ({ status }) => status);
  const asOf = live.data?.batches
    .map(({ as_of: time }) => time)
    .filter(Boolean)
    .sort()[0];
  return h(
    Section,
    {
      title: "Batches",
      aside: batchUrl ? h(ProviderLink, { href: batchUrl }, "Batches at the provider") : null,
    },
    h(
      Text,
      { fontSize: "sm", color: "fg.muted" },
      `${counted(summary.batches, "batch", "batches")} so far for ${counted(summary.sealed_shards, "shard")}` +
        (summary.retry_rounds.length ? `, ${counted(summary.retry_rounds.length, "retry round")}` : ""),
      asOf ? [" · the provider's counts as of ", h(Age, { key: "as of", time: asOf })] : null,
    ),
    [...groups].map(([status, shards], index) =>
      h(Group, { key: status, status, shards, isOpen: index === 0 && summary.shards.length <= 5 }),
    ),
    hidden
      ? h(
          Text,
          { fontSize: "sm", color: "fg.muted" },
          `${counted(hidden, "more shard")} not shown. \`airflow-batch jobs show --json\` prints all of them.`,
        )
      : null,
  );
}

/** Return what to show about a shard: its newest submission, and what the provider says about its batch. */
function describe(shard, byId, batchUrl) {
  const newest = shard.submissions.at(-1);
  const live = newest && !newest.settled ? byId.get(newest.batch_id) : null;
  const status = live?.status ?? (newest?.settled ? newest.status : shard.phase);
  const url = batchUrl && newest?.batch_id ? `${batchUrl}/${encodeURIComponent(newest.batch_id)}` : null;
  return { ...shard, newest, live, status, url, isSettled: Boolean(newest?.settled) };
}

function Group({ status, shards, isOpen }) {
  const [open, setOpen] = useState(isOpen);
  const [offset, setOffset] = useState(0);
  const rows = shards.reduce((sum, { requests }) => sum + requests, 0);
  return h(
    Collapsible.Root,
    { open, onOpenChange: (event) => setOpen(event.open), lazyMount: true },
    h(
      Collapsible.Trigger,
      { asChild: true },
      h(
        Button,
        { variant: "outline", size: "sm", width: "100%", justifyContent: "space-between" },
        h(
          HStack,
          null,
          h(StateBadge, { state: status }),
          h("span", null, `${counted(shards.length, "shard")}, ${counted(rows, "request")}`),
        ),
        h("span", { "aria-hidden": true }, open ? "▾" : "▸"),
      ),
    ),
    h(
      Collapsible.Content,
      null,
      h(
        Stack,
        { gap: 2, pt: 2 },
        h(DataTable, {
          label: `Shards that are ${status}`,
          rows: shards.slice(offset, offset + PAGE_SIZE),
          rowKey: ({ name }) => name,
          columns: [
            { key: "name", title: "Shard", cell: ({ name }) => name },
            { key: "batch", title: "Batch", cell: BatchId },
            { key: "model", title: "Model", cell: ({ model }) => model },
            { key: "requests", title: "Requests", numeric: true, cell: ({ requests }) => count(requests) },
            { key: "progress", title: "Progress", width: "14rem", cell: BatchProgress },
            { key: "attempt", title: "Attempt", numeric: true, cell: ({ attempt }) => count(attempt) },
            { key: "time", title: "Last event", cell: ({ newest }) => h(Age, { time: newest?.time }) },
            { key: "history", title: "Submissions", cell: Submissions },
          ],
        }),
        h(Pager, {
          offset,
          limit: PAGE_SIZE,
          shown: Math.min(PAGE_SIZE, shards.length - offset),
          total: shards.length,
          onOffset: setOffset,
          what: `shards that are ${status}`,
        }),
      ),
    ),
  );
}

function BatchId({ newest, url }) {
  const id = newest?.batch_id ?? "no batch";
  return h(
    Box,
    { as: "code", display: "block", minW: "11rem", fontSize: "xs", overflowWrap: "anywhere" },
    url ? h(ProviderLink, { href: url }, id) : id,
  );
}

function BatchProgress({ name, live, newest, requests }) {
  if (live) {
    const { total, completed, failed } = live;
    const waiting =
      total === null || total === undefined ? null : Math.max(0, total - (completed ?? 0) - (failed ?? 0));
    return h(
      Stack,
      { gap: 1 },
      h(Bar, { done: completed, failed, waiting, rows: total ?? requests, label: `Progress of ${name}` }),
      live.problem ? h(Text, { fontSize: "xs", color: "fg.warning", overflowWrap: "anywhere" }, live.problem) : null,
    );
  }
  if (!newest?.settled) return "–";
  return (
    Object.entries(newest.outcomes)
      .map(([outcome, rows]) => `${count(rows)} ${outcome}`)
      .join(", ") || "–"
  );
}

function Submissions({ submissions }) {
  const messages = submissions.filter(({ message }) => message);
  return h(
    Stack,
    { gap: 0, maxW: "24rem" },
    h("span", null, count(submissions.length)),
    messages.slice(-2).map(({ number, status, message }) =>
      h(
        Text,
        {
          key: number,
          fontSize: "xs",
          color: "fg.muted",
          overflowWrap: "anywhere",
          lineClamp: 3,
          title: plain(message),
        },
        `${number}: ${status}. ${plain(message)}`,
      ),
    ),
  );
}

/** Return the address of the provider's own page, if it is the fixed one of OpenAI. No other address is ever linked. */
function providerPage(address) {
  return address === OPENAI_BATCHES ? address : null;
}

/** A link to the provider's own page, in a tab of its own. */
function ProviderLink({ href, children }) {
  return h(
    Link,
    { href, target: "_blank", rel: "noopener noreferrer", color: "fg.info", fontSize: "inherit" },
    children,
    " ↗",
  );
}
