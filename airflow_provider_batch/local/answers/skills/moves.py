"""Answers questions about where something is after several moves."""

from __future__ import annotations

import re

_WALK = re.compile(r"take (\d+) steps? (forward|backward)|turn 90 degrees (left|right)")
_WALK_QUESTION = re.compile(r"what coordinate are you at\?")
_HOLDS = re.compile(r"\b([A-Z]\w+) has an? (\w+) \w+")
_SWAP = re.compile(r"\b([A-Z]\w+) and ([A-Z]\w+) swap\b")
_OWNER_QUESTION = re.compile(r"At the end of the game, what \w+ is (\w+)'s \w+\?")
_PLACED = re.compile(r"\bAn? (\w+) is on the (\w+)\.")
_MOVED = re.compile(r"\bMove all \w+ (?:on|from) the (\w+) to the (\w+)\.")
_PLACE_QUESTION = re.compile(r"\bWhere is the (\w+)\?")


def answer_moves(question: str) -> str | None:
    """Return the answer to a question about moves, or None."""
    return _walk(question) or _swap(question) or _move(question)


def _walk(question: str) -> str | None:
    """Return the coordinates after a walk that starts at (0, 0) in the direction of positive y."""
    if not _WALK_QUESTION.search(question):
        return None
    position, direction = 0j, 1j
    for steps, way, turn in _WALK.findall(question):
        if turn:
            direction *= 1j if turn == "left" else -1j
        else:
            position += direction * int(steps) * (1 if way == "forward" else -1)
    return f"({int(position.real)}, {int(position.imag)})"


def _swap(question: str) -> str | None:
    """Return what a person has at the end, after pairs of persons swapped what they hold."""
    match = _OWNER_QUESTION.search(question)
    if match is None:
        return None
    holds: dict[str, str] = dict(_HOLDS.findall(question))
    for first, second in _SWAP.findall(question):
        if first in holds and second in holds:
            holds[first], holds[second] = holds[second], holds[first]
    return holds.get(match[1])


def _move(question: str) -> str | None:
    """Return the place of a thing, after everything at a place was moved to another one."""
    match = _PLACE_QUESTION.search(question)
    places: dict[str, str] = dict(_PLACED.findall(question))
    place = places.get(match[1]) if match else None
    if place is None:
        return None
    for source, target in _MOVED.findall(question):
        place = target if place == source else place
    return place
