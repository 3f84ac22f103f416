// What a person can do with a job. Each button first says what it does and what it costs, and then shows the result.

import { address, get, identity, post, useRead } from "./api.js";
import { Failure, Loading, Notice } from "./parts.js";

const { Button, Dialog, Flex, Portal, Stack, Text } = ChakraUI;
const { useRef, useState } = React;

const h = React.createElement;

/** The buttons of a job. They are read again when `version` changes. */
export function Actions({ job, version, onDone }) {
  const { data, error, reload } = useRead(`${address("actions", identity(job))}#${version}`, { keep: true });
  if (!data) return error ? h(Failure, { error, reload }) : null;
  const reasons = data.actions.filter(({ allowed, possible }) => !allowed || !possible);
  const isRefused = data.actions.some(({ allowed }) => !allowed);
  const done = () => {
    reload();
    onDone();
  };
  return h(
    Stack,
    { gap: 2 },
    error ? h(Failure, { error, reload, stale: true }) : null,
    h(
      Flex,
      { gap: 2, wrap: "wrap", role: "group", "aria-label": "Actions" },
      data.actions.map((action) => h(Action, { key: action.name, job, action, onDone: done })),
    ),
    isRefused
      ? h(
          Text,
          { id: reasonId("allowed"), fontSize: "sm", color: "fg.muted" },
          "You may read this job. Its buttons need the right to edit the task instances of the DAG.",
        )
      : reasons.map(({ name, label, explanation }) =>
          h(Text, { key: name, id: reasonId(name), fontSize: "sm", color: "fg.muted" }, `${label}: ${explanation}`),
        ),
  );
}

function reasonId(name) {
  return `llm-batch-why-not-${name}`;
}

function Action({ job, action, onDone }) {
  const [isOpen, setOpen] = useState(false);
  const [state, setState] = useState({ isSending: false, result: null, error: null });
  const button = useRef(null);
  const isEnabled = action.possible && action.allowed;
  const send = async () => {
    setState({ isSending: true, result: null, error: null });
    try {
      const { result } = await post(address(`actions/${action.name}`, identity(job)));
      setState({ isSending: false, result, error: null });
      onDone();
    } catch (error) {
      setState({ isSending: false, result: null, error });
    }
  };
  const change = ({ open }) => {
    setOpen(open);
    if (open) setState({ isSending: false, result: null, error: null });
  };
  return h(
    Dialog.Root,
    {
      open: isOpen,
      onOpenChange: change,
      role: "alertdialog",
      finalFocusEl: () => button.current,
      placement: "center",
      size: "md",
    },
    h(
      Button,
      {
        ref: button,
        size: "sm",
        variant: "outline",
        colorPalette: action.name === "cancel" ? "red" : "brand",
        disabled: !isEnabled && !isOpen,
        "aria-describedby": isEnabled ? undefined : reasonId(action.allowed ? action.name : "allowed"),
        onClick: () => change({ open: true }),
      },
      action.label,
    ),
    h(
      Portal,
      null,
      h(Dialog.Backdrop),
      h(
        Dialog.Positioner,
        null,
        h(
          Dialog.Content,
          null,
          h(Dialog.Header, null, h(Dialog.Title, null, action.label)),
          h(
            Dialog.Body,
            null,
            h(
              Stack,
              { gap: 3 },
              state.result
                ? null
                : h(Dialog.Description, { whiteSpace: "pre-line", overflowWrap: "anywhere" }, action.explanation),
              state.isSending ? h(Loading, { what: "the result" }) : null,
              state.error ? h(Failure, { error: state.error }) : null,
              state.result ? h(Notice, { status: "success", title: "Done", role: "status" }, state.result) : null,
            ),
          ),
          h(
            Dialog.Footer,
            null,
            h(
              Button,
              { size: "sm", variant: "outline", onClick: () => change({ open: false }) },
              state.result ? "Close" : "Keep as it is",
            ),
            state.result
              ? null
              : h(
                  Button,
                  {
                    size: "sm",
                    colorPalette: action.name === "cancel" ? "red" : "brand",
                    disabled: state.isSending,
                    onClick: send,
                  },
                  action.label,
                ),
          ),
        ),
      ),
    ),
  );
}
