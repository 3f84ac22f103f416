"""Answers questions about words, letters and lists."""

from __future__ import annotations

import re

_INITIALS = re.compile(r'first letters of the words in the following sentence: "(.+)"')
_NTH_WORD = re.compile(r'\b(\d{1,2})(?:st|nd|rd|th) word in "(.+?)"')
_STARTING = re.compile(r"how many \w+ start with the letter (\w) ?\?:?(.+)", re.DOTALL)
_LIST_ITEM = re.compile(r"^\s*\d+\. *(.+)$", re.MULTILINE)
_LISTS = re.compile(r"in list 1 but not in list 2\b.*\nList 1:\n(.+)\nList 2:\n(.+)", re.DOTALL)
_RULE = re.compile(r'if "(.)" character is encountered, replace it with "(.)"')
_WORD = re.compile(r"[^\W_]+")


def answer_words(question: str) -> str | None:
    """Return the answer to a question about words, or None."""
    return (
        _join_initials(question)
        or _nth_word(question)
        or _count_starting(question)
        or _missing_name(question)
        or _replace_letters(question)
    )


def _join_initials(question: str) -> str | None:
    match = _INITIALS.search(question)
    return "".join(word[0] for word in _WORD.findall(match[1])).lower() if match else None


def _nth_word(question: str) -> str | None:
    match = _NTH_WORD.search(question)
    words = _WORD.findall(match[2]) if match else []
    number = int(match[1]) if match else 0
    return words[number - 1] if 0 < number <= len(words) else None


def _count_starting(question: str) -> str | None:
    match = _STARTING.search(question)
    if match is None:
        return None
    return str(sum(item.lower().startswith(match[1].lower()) for item in _LIST_ITEM.findall(match[2])))


def _missing_name(question: str) -> str | None:
    """Return the first name of list 1 that list 2, with the last name first, does not have."""
    match = _LISTS.search(question)
    if match is None:
        return None
    present = {tuple(reversed(line.split())) for line in match[2].splitlines()}
    return next((line.strip() for line in match[1].splitlines() if tuple(line.split()) not in present), None)


def _replace_letters(question: str) -> str | None:
    rules = _RULE.findall(question)
    if not rules:
        return None
    text = question.rsplit("\n\n", 1)[-1]
    return text.translate(str.maketrans(dict(rules)))
