"""Chat messages as the one text that a case sends.

A case has one `input`, which the DAG sends as one user message. System and user messages are joined with blank lines,
as in the cases of the demo. Anything else would change the question, so it needs a decision: turns of an assistant are
left out unless the import writes a transcript, and images or tool calls are always left out.
"""

from __future__ import annotations

from typing import Any

#: roles whose messages are instructions or questions
_PLAIN_ROLES = frozenset({"system", "developer", "user"})
#: how OpenAI's evals name the speakers of a transcript; other names and roles are capitalised
_SPEAKERS = {
    "system": "",
    "developer": "",
    "example_system": "",
    "example_user": "User: ",
    "example_assistant": "Assistant: ",
}


class NotImportableError(Exception):
    """Raised if a test cannot become a case. The message says why, as the part of a sentence after a place."""


def flatten(value: Any, *, transcript: bool = False) -> str:
    """Return the text of an input: text, or a list of chat messages.

    :param transcript: write a conversation with several turns as a transcript, in the words of OpenAI's evals.
    :raises NotImportableError: if the text would not be the question any more.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise NotImportableError("the input is neither text nor a list of chat messages")
    messages = [_read_message(message) for message in value]
    if all(role in _PLAIN_ROLES and not name for role, name, _ in messages):
        return "\n\n".join(content for _, _, content in messages)
    turns = sum(role not in _PLAIN_ROLES or bool(name) for role, name, _ in messages)
    if not transcript:
        raise NotImportableError(
            f"the input is a conversation: {turns} of its {len(messages)} messages are examples or answers. A case "
            "sends one text. Import with the option `transcript` to write the conversation into this text"
        )
    lines = [
        _SPEAKERS.get(name or role, (name or role).capitalize() + ": ") + content for role, name, content in messages
    ]
    return "\n".join(lines)


def _read_message(message: Any) -> tuple[str, str, str]:
    """Return role, name and text of a message."""
    if not isinstance(message, dict):
        raise NotImportableError("a message of the input is not an object")
    role, name, content = message.get("role"), message.get("name") or "", message.get("content")
    if role not in (*_PLAIN_ROLES, "assistant") or not isinstance(name, str):
        raise NotImportableError(f"a message of the input has the role {role!r}")
    if message.get("tool_calls") or message.get("function_call"):
        raise NotImportableError("a message of the input calls a tool")
    if isinstance(content, list):
        content = _join_parts(content)
    if not isinstance(content, str):
        raise NotImportableError("a message of the input has no text")
    return role, name, content


def _join_parts(parts: list[Any]) -> str:
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "input_text") or not isinstance(part.get("text"), str):
            raise NotImportableError(f"a message of the input has a part of the type {kind!r}, which is not text")
        texts.append(part["text"])
    return "".join(texts)
