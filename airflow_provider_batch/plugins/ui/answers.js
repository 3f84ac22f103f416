// The first answers of a job, as they come in: row by row, with what was sent.

import { INTERVAL_MS, address, identity, useRead } from "./api.js";
import { plain } from "./format.js";
import { Empty, Failure, Loading, Notice, Pager, Section, StateBadge, Verbatim } from "./parts.js";

const { Box, Button, Field, Flex, Grid, HStack, Input, NativeSelect, Stack, Text } = ChakraUI;
const { useEffect, useState } = React;

const h = React.createElement;

const PAGE_SIZE = 5;
/** The outcomes that a collected answer may have; `core/answers/outcome.py` explains them. */
const OUTCOMES = ["succeeded", "incomplete", "refused", "invalid_output", "failed", "expired", "cancelled", "missing"];

/** The answers of a job, with a filter. */
export function Answers({ job, isActive }) {
  const [outcome, setOutcome] = useState("");
  const [typed, setTyped] = useState("");
  const [text, setText] = useState("");
  const [offset, setOffset] = useState(0);
  useEffect(() => {
    const timer = setTimeout(() => {
      setText(typed);
      setOffset(0);
    }, 400);
    return () => clearTimeout(timer);
  }, [typed]);
  const { data, error, reload } = useRead(
    address("answers", { ...identity(job), offset, limit: PAGE_SIZE, outcome, text }),
    {
      pace: () => (isActive ? INTERVAL_MS : 0),
      keep: true,
    },
  );
  const answers = data?.answers ?? [];
  const isFiltered = Boolean(outcome || text);
  return h(
    Section,
    { title: "Answers" },
    h(
      Flex,
      {
        as: "form",
        role: "search",
        "aria-label": "Filter answers",
        gap: 3,
        wrap: "wrap",
        onSubmit: (event) => event.preventDefault(),
      },
      h(
        Field.Root,
        { width: { base: "100%", md: "18rem" } },
        h(Field.Label, null, "Search answers"),
        h(Input, {
          size: "sm",
          type: "search",
          placeholder: "custom_id, input or answer",
          value: typed,
          onChange: (event) => setTyped(event.target.value),
        }),
      ),
      h(
        Field.Root,
        { width: { base: "100%", md: "12rem" } },
        h(Field.Label, null, "Outcome"),
        h(
          NativeSelect.Root,
          { size: "sm" },
          h(
            NativeSelect.Field,
            {
              value: outcome,
              onChange: (event) => {
                setOutcome(event.target.value);
                setOffset(0);
              },
            },
            h("option", { value: "" }, "All"),
            OUTCOMES.map((name) => h("option", { key: name, value: name }, name.replaceAll("_", " "))),
          ),
          h(NativeSelect.Indicator),
        ),
      ),
    ),
    data?.problem ? h(Notice, { status: "warning", title: "Not every answer can be shown" }, data.problem) : null,
    error ? h(Failure, { error, reload, stale: Boolean(data) }) : null,
    !data && !error ? h(Loading, { what: "the answers" }) : null,
    data && !answers.length && !data.problem
      ? h(
          Empty,
          { title: isFiltered ? "No answer matches this filter" : "No answers yet" },
          isFiltered
            ? "Only answers that are collected are searched."
            : "Answers appear here as soon as a batch has ended and its files are collected, before anything lands.",
        )
      : null,
    answers.map((answer) => h(Answer, { key: `${answer.custom_id} ${answer.shard} ${answer.attempt}`, answer })),
    h(Pager, {
      offset,
      limit: PAGE_SIZE,
      shown: answers.length,
      more: Boolean(data?.more),
      onOffset: setOffset,
      what: "answers",
    }),
  );
}

function Answer({ answer }) {
  return h(
    Stack,
    {
      as: "article",
      "aria-label": `Answer to ${plain(answer.custom_id)}`,
      gap: 2,
      p: 3,
      borderWidth: "1px",
      borderColor: "border",
      borderRadius: "md",
    },
    h(
      HStack,
      { gap: 3, wrap: "wrap" },
      h(
        Box,
        { as: "code", dir: "auto", fontSize: "sm", fontWeight: "semibold", overflowWrap: "anywhere" },
        plain(answer.custom_id),
      ),
      h(StateBadge, { state: answer.outcome }),
      h(
        Text,
        { fontSize: "xs", color: "fg.muted" },
        [answer.model, answer.shard, answer.attempt > 1 ? `attempt ${answer.attempt}` : ""].filter(Boolean).join(" · "),
      ),
    ),
    h(
      Grid,
      { templateColumns: { base: "minmax(0, 1fr)", lg: "minmax(0, 1fr) minmax(0, 1fr)" }, gap: 3 },
      h(Part, { name: "Input", text: answer.input, label: `Input of ${plain(answer.custom_id)}` }),
      h(Part, { name: "Answer", text: answer.response, label: `Answer to ${plain(answer.custom_id)}` }),
    ),
    answer.message
      ? h(Text, { dir: "auto", fontSize: "sm", color: "fg.error", overflowWrap: "anywhere" }, plain(answer.message))
      : null,
  );
}

function Part({ name, text, label }) {
  return h(
    Stack,
    { gap: 1, minW: 0 },
    h(Text, { fontSize: "xs", color: "fg.muted" }, name),
    text ? h(Verbatim, { text, label, maxH: "10rem" }) : h(Text, { fontSize: "sm", color: "fg.muted" }, "none"),
  );
}
