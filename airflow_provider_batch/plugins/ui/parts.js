// Parts that several views use. Everything is a text node, and colours are the host's semantic tokens, so that its light
// and dark modes apply.

import { RequestError } from "./api.js";
import { age, count, percent, plain, utc } from "./format.js";

const { Alert, Badge, Box, Button, Flex, Heading, HStack, Spinner, Stack, Text, VisuallyHidden } = ChakraUI;
const { useEffect, useState } = React;
const { Link: RouterLink } = ReactRouterDOM;

const h = React.createElement;

/** Route of the page in Airflow; `plugins/batch.py` registers it. */
export const PAGE = "/plugin/llm-batch";

/** Return the path in Airflow of a job's own page. */
export function jobPath(job) {
  const query = new URLSearchParams({ dag_id: job.dag_id, run_id: job.run_id, task_id: job.task_id });
  if (job.map_index >= 0) query.set("map_index", job.map_index);
  return `${PAGE}?${query}`;
}

/** Return the path in Airflow of a task instance, of a run, or of a DAG. */
export function airflowPath({ dag_id, run_id, task_id, map_index = -1 }) {
  const parts = ["dags", dag_id];
  if (run_id) parts.push("runs", run_id);
  if (task_id) parts.push("tasks", task_id);
  if (task_id && map_index >= 0) parts.push("mapped", String(map_index));
  return `/${parts.map(encodeURIComponent).join("/")}`;
}

/** A link within Airflow. */
export function InternalLink({ to, children, ...rest }) {
  return h(ChakraUI.Link, { asChild: true, color: "fg.info", ...rest }, h(RouterLink, { to }, children));
}

/** The names of a job's DAG, task and map index, as one text. */
export function jobName(job) {
  return `${job.dag_id} · ${job.task_id}${job.map_index >= 0 ? ` [${job.map_index}]` : ""}`;
}

/** The palette of a state of a job, a batch, a task or an outcome: where Airflow has one for its own states, that one. */
const PALETTES = {
  success: ["landed", "completed", "succeeded", "success", "settled"],
  running: ["running", "sending", "landing", "live", "in_progress", "finalizing", "restarting"],
  deferred: ["deferred", "waiting"],
  queued: ["sent", "sealed", "canary", "queued", "scheduled", "creating", "validating", "uploaded", "pending"],
  teal: ["answered"],
  orange: [
    "refused",
    "expired",
    "incomplete",
    "invalid_output",
    "missing",
    "invalid_input",
    "withheld",
    "up_for_retry",
  ],
  failed: ["held", "failed", "upstream_failed"],
};
const PALETTE_OF = new Map(
  Object.entries(PALETTES).flatMap(([palette, states]) => states.map((state) => [state, palette])),
);

/** A state in a coloured frame. The word itself says everything; the colour only repeats it. */
export function StateBadge({ state, text = state }) {
  return h(
    Badge,
    {
      colorPalette: PALETTE_OF.get(state) ?? "gray",
      variant: "subtle",
      whiteSpace: "normal",
      overflowWrap: "anywhere",
      borderRadius: "full",
      px: 2,
    },
    String(text ?? "unknown").replaceAll("_", " "),
  );
}

/** How many rows are done, failed and waiting: a bar, and the same in words. */
export function Bar({ done, failed, waiting, rows, label, size = "2.5" }) {
  const known = [done, failed].some((value) => value !== null && value !== undefined);
  const total = rows || (done ?? 0) + (failed ?? 0) + (waiting ?? 0);
  const ended = (done ?? 0) + (failed ?? 0);
  const words = known
    ? [
        `${count(done ?? 0)} done`,
        failed ? `${count(failed)} failed` : "",
        waiting ? `${count(waiting)} waiting` : "",
      ].filter(Boolean).join(", ") // prettier-ignore
    : `${count(rows)} rows, progress unknown`;
  const segment = (color, value) =>
    h(Box, { bg: color, height: "100%", width: `${total ? (100 * value) / total : 0}%`, transition: "width 0.6s" });
  return h(
    Stack,
    { gap: 1, minW: "9rem" },
    h(
      Flex,
      {
        role: "progressbar",
        "aria-label": label,
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        ...(known ? { "aria-valuenow": percent(ended, total) } : {}),
        "aria-valuetext": words,
        bg: "bg.emphasized",
        borderRadius: "full",
        height: size,
        overflow: "hidden",
      },
      segment("success.solid", done ?? 0),
      segment("failed.solid", failed ?? 0),
    ),
    h(
      Text,
      { fontSize: "xs", color: "fg.muted", "aria-hidden": true },
      known && total && waiting ? `${percent(ended, total)} % · ${words}` : words,
    ),
  );
}

/** A time as an age, with the exact time on hover. */
export function Age({ time }) {
  useTick();
  return time ? h("time", { dateTime: time, title: utc(time) }, age(time)) : h("span", { title: "unknown" }, "–");
}

/** Draw again twice a minute, because ages grow. */
function useTick() {
  const [, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTick((tick) => tick + 1), 30_000);
    return () => clearInterval(timer);
  }, []);
}

/** Whether the window is too narrow for tables: below 768 px. */
export function useNarrow() {
  const query = "(max-width: 767px)";
  const [isNarrow, setNarrow] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const change = () => setNarrow(list.matches);
    list.addEventListener("change", change);
    return () => list.removeEventListener("change", change);
  }, []);
  return isNarrow;
}

/** A section with a heading. */
export function Section({ title, aside, children, ...rest }) {
  return h(
    Stack,
    { gap: 3, ...rest },
    h(
      Flex,
      { justify: "space-between", align: "center", gap: 3, wrap: "wrap" },
      h(Heading, { as: "h2", size: "md" }, title),
      aside,
    ),
    children,
  );
}

/** A figure with its name, and what it is compared with. */
export function Figure({ name, value, help }) {
  return h(
    Box,
    {
      borderWidth: "1px",
      borderColor: "border",
      borderRadius: "md",
      px: { base: 3, md: 4 },
      py: { base: 2, md: 3 },
      minW: "7.5rem",
      flex: "1 1 7.5rem",
    },
    h(Text, { color: "fg.muted", fontSize: "sm" }, name),
    h(
      Text,
      { fontSize: "xl", fontWeight: "semibold", fontVariantNumeric: "tabular-nums", overflowWrap: "anywhere" },
      value,
    ),
    help ? h(Text, { color: "fg.muted", fontSize: "xs" }, help) : null,
  );
}

/** A framed message. */
export function Notice({ status = "info", title, children, role }) {
  return h(
    Alert.Root,
    { status, role, alignItems: "flex-start" },
    h(Alert.Indicator),
    h(
      Alert.Content,
      { minW: 0 },
      title ? h(Alert.Title, null, title) : null,
      children ? h(Alert.Description, { as: "div", overflowWrap: "anywhere" }, children) : null,
    ),
  );
}

const TITLES = {
  0: "The API server could not be reached",
  400: "This address is not understood",
  401: "You are not logged in",
  403: "You may not see this",
  404: "Nothing was found here",
  409: "This is not possible now",
  503: "The API server is busy",
};
const ADVICE = {
  0: "Check your connection. The page tries again every 10 s.",
  400: "A filter or a part of the address may be misspelt. Start again from the list of all jobs.",
  401: "Your session has ended. Load the page again to log in.",
  403: "Ask an administrator of this Airflow for the right to read the task instances of the DAG.",
  404: "A job appears once its submit task has sealed the rows. Open the run to see how far it is.",
  409: "The job has changed since this page was read. See what it offers now.",
  503: "Nothing is wrong with your jobs: they run on. The page tries again every 10 s.",
};

/** What went wrong while reading, and what to do. */
export function Failure({ error, reload, stale = false }) {
  const status = error instanceof RequestError ? error.status : -1;
  return h(
    Notice,
    {
      status: status === 503 || stale ? "warning" : "error",
      title: TITLES[status] ?? "This could not be read",
      role: "alert",
    },
    h(Text, null, error.message),
    h(Text, null, ADVICE[status] ?? "Try again. If it happens again, the log of the API server says more."),
    stale ? h(Text, null, "What you see below is the last answer.") : null,
    reload ? h(Button, { size: "xs", variant: "outline", mt: 2, onClick: reload }, "Try again") : null,
  );
}

/** What is shown until the first answer is here. */
export function Loading({ what }) {
  return h(
    HStack,
    { role: "status", py: 6, color: "fg.muted" },
    h(Spinner, { size: "sm" }),
    h(Text, null, `Reading ${what} …`),
  );
}

/** What is shown where there is nothing to show, and why. */
export function Empty({ title, children }) {
  return h(
    Stack,
    {
      align: "center",
      textAlign: "center",
      py: 10,
      px: 4,
      gap: 1,
      borderWidth: "1px",
      borderColor: "border",
      borderRadius: "md",
    },
    h(Text, { fontWeight: "semibold" }, title),
    h(Box, { color: "fg.muted", maxW: "40rem" }, children),
  );
}

/** Text of a person, a model or a provider: as it is, with its line breaks, in a box of bounded height. */
export function Verbatim({ text, label, maxH = "16rem" }) {
  return h(
    Box,
    {
      as: "pre", // a scrolling box must be reachable by keyboard
      tabIndex: 0,
      "aria-label": label,
      role: "region",
      dir: "auto",
      fontSize: "xs",
      fontFamily: "mono",
      whiteSpace: "pre-wrap",
      overflowWrap: "anywhere",
      overflow: "auto",
      maxH,
      m: 0,
      p: 2,
      bg: "bg.subtle",
      borderRadius: "sm",
    },
    plain(text),
  );
}

/**
 * Buttons to the previous and the next page, and which entries this page shows.
 *
 * @param total the number of entries on all pages; null if it is not known.
 * @param more whether another page follows, if the total is not known.
 */
export function Pager({ offset, limit, shown, total = null, more = false, onOffset, what }) {
  const last = offset + shown;
  const hasNext = total === null ? more : last < total;
  if (!offset && !hasNext) return null;
  const position = `${count(shown ? offset + 1 : 0)} to ${count(last)}${total === null ? "" : ` of ${count(total)}`}`;
  const button = (name, isPossible, next) =>
    h(Button, { size: "xs", variant: "outline", disabled: !isPossible, onClick: () => onOffset(next) }, name);
  return h(
    HStack,
    { as: "nav", "aria-label": `Pages of ${what}`, gap: 3 },
    button("Previous", offset > 0, Math.max(0, offset - limit)),
    h(Text, { fontSize: "sm", color: "fg.muted" }, position),
    button("Next", hasNext, offset + limit),
  );
}

/** Text that only a screen reader says, when it changes. */
export function Announcement({ children }) {
  return h(VisuallyHidden, { "aria-live": "polite", role: "status" }, children);
}

/** A table whose columns are `[{ key, title, numeric, cell(row) }]`, in a box of its own that scrolls sideways. */
export function DataTable({ label, columns, rows, rowKey, caption }) {
  const { Table } = ChakraUI;
  return h(
    Box,
    {
      overflowX: "auto",
      borderWidth: "1px",
      borderColor: "border",
      borderRadius: "md",
      tabIndex: 0,
      role: "region",
      "aria-label": label,
    },
    h(
      Table.Root,
      { size: "sm" },
      caption ? h(Table.Caption, null, caption) : null,
      h(
        Table.Header,
        null,
        h(
          Table.Row,
          null,
          columns.map(({ key, title, header, numeric, sort, width }) =>
            h(
              Table.ColumnHeader,
              {
                key,
                scope: "col",
                textAlign: numeric ? "end" : "start",
                "aria-sort": sort,
                whiteSpace: "nowrap",
                fontWeight: "medium",
                width,
              },
              header ?? title,
            ),
          ),
        ),
      ),
      h(
        Table.Body,
        null,
        rows.map((row, index) =>
          h(
            Table.Row,
            { key: rowKey ? rowKey(row) : index },
            columns.map(({ key, numeric, cell }) =>
              h(
                Table.Cell,
                {
                  key,
                  textAlign: numeric ? "end" : "start",
                  verticalAlign: "top",
                  fontVariantNumeric: numeric ? "tabular-nums" : undefined,
                },
                cell(row),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
