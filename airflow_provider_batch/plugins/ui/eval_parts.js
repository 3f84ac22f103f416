// Parts that the views of the evals share.

import { count, plain, utc } from "./format.js";
import { Choice } from "./jobs.js";
import { Notice } from "./parts.js";

const { Badge, Box, Stack, Text } = ChakraUI;

const h = React.createElement;

const VERDICTS = {
  no_history: ["no history", "gray"],
  same: ["no change", "gray"],
  improved: ["improved", "success"],
  regressed: ["regressed", "failed"],
  mixed: ["some broke, some fixed", "failed"],
  better: ["better", "success"],
  worse: ["worse", "failed"],
  unanswered: ["no answer", "orange"],
};

/** The verdict about a run or a case, in words. */
export function Verdict({ verdict }) {
  const [text, palette] = VERDICTS[verdict] ?? [verdict ?? "–", "gray"];
  return h(Badge, { colorPalette: palette, variant: "subtle" }, text);
}

/** Return a share between 0 and 1 in percent. */
export function share(value) {
  return value === null || value === undefined ? "unknown" : `${(100 * value).toFixed(1)} %`;
}

/** Return an accuracy with its interval. */
export function accuracy({ accuracy: value, low, high }) {
  return value === null ? "unknown" : `${share(value)} (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)} %)`;
}

/** The answers of a model to a case, each with its grade and the reason. */
export function Answers({ answers, score, change }) {
  if (!answers.length) return h(Text, { color: "fg.muted", fontSize: "sm" }, "not sent");
  return h(
    Stack,
    { gap: 2, minW: "14rem", maxW: "30rem" },
    change && change !== "same" ? h(Box, null, h(Verdict, { verdict: change })) : null,
    answers.map((answer) =>
      h(
        Box,
        { key: answer.repeat },
        h(
          Badge,
          {
            colorPalette: !answer.answered ? "orange" : answer.passed ? "success" : "failed",
            variant: "subtle",
            mb: 1,
          },
          answer.answered
            ? answer.passed
              ? "✓ right"
              : "✗ wrong"
            : `no answer: ${plain(answer.outcome ?? "never sent")}`,
          answers.length > 1 ? ` · repeat ${answer.repeat}` : "",
        ),
        h(
          Text,
          {
            as: "div",
            dir: "auto",
            fontSize: "sm",
            whiteSpace: "pre-wrap",
            overflowWrap: "anywhere",
            lineClamp: 8,
            title: plain(answer.text),
          },
          plain(answer.text ?? "–"),
        ),
        answer.reason
          ? h(Text, { fontSize: "xs", color: "fg.muted", overflowWrap: "anywhere" }, plain(answer.reason))
          : null,
      ),
    ),
    score !== null && score > 0 && score < 1
      ? h(Text, { fontSize: "xs", color: "fg.muted" }, `mean score ${score.toFixed(2)}`)
      : null,
  );
}

/** A case: its id, its question and the expected answer. */
export function Question({ case_id, prompt, expected, tags = [] }) {
  return h(
    Stack,
    { gap: 1, minW: "12rem", maxW: "26rem" },
    h(Text, { fontFamily: "mono", fontSize: "xs", overflowWrap: "anywhere" }, plain(case_id)),
    h(
      Text,
      {
        as: "div",
        dir: "auto",
        fontSize: "sm",
        whiteSpace: "pre-wrap",
        overflowWrap: "anywhere",
        lineClamp: 6,
        title: plain(prompt),
      },
      plain(prompt ?? "This case is no longer among the cases."),
    ),
    expected === null
      ? null
      : h(Text, { fontSize: "xs", color: "fg.muted", overflowWrap: "anywhere" }, `expected: ${plain(expected)}`),
    tags.length ? h(Text, { fontSize: "xs", color: "fg.muted" }, tags.map(plain).join(" · ")) : null,
  );
}

/** A choice among the runs that have a report, by the time of the report. */
export function RunChoice({ label, value, reports, onChange }) {
  const times = reports.map(({ written_at }) => utc(written_at).slice(0, 16));
  const options = reports.map(({ run_id }, index) => [
    run_id,
    times.indexOf(times[index]) === times.lastIndexOf(times[index]) ? times[index] : `${times[index]} ${plain(run_id)}`,
  ]);
  return h(Choice, { label, value, options, onChange });
}

/** Says that no model was called, if that is so. */
export function StubNotice({ answers }) {
  return answers
    ? h(
        Notice,
        { status: "warning", title: "No model was called" },
        `${count(answers)} answers come from the stub of the local batch server, not from these models. Accuracy and cost say nothing about them.`,
      )
    : null;
}
