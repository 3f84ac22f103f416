"""Tokens of an image, by model, size and `detail`.

The rules are OpenAI's (guide "Images and vision", sections "Model sizing behavior" and "Calculating costs", in the
edition of autumn 2026 that has GPT-5.6). Older models charge by tiles of 512 x 512 pixels, newer ones by patches of
32 x 32 pixels. Where the guide is silent, the rules here are on the safe side:

* The deprecated models of the guide (gpt-4.1-nano, gpt-5-mini, gpt-5-nano, o4-mini) have no sizes in it any more. Their
  earlier limit of 1,536 patches is used. gpt-5.3 is treated as gpt-5.2.
* GPT-6 and later are treated as GPT-5.6, which does not shrink an image unless `detail` asks for it. The API refuses
  images of more than 30,000 patches, so that no image costs more.
* A model whose name contains no model of OpenAI (a deployment, another provider) gets the sizes of GPT-5.6 and the
  highest multiplier of any model.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import ceil, floor, prod, sqrt
from typing import NamedTuple

_TILE, _PATCH = 512, 32
#: An image that is charged by tiles is shrunk to fit into a square with this side, and until no more than one of its
#: sides is longer than the second number.
_SQUARE, _SHORT_SIDE = 2048, 768


class _Tiles(NamedTuple):
    """Tokens of an image with `detail` low, and of each tile otherwise."""

    base: int
    tile: int


class _Limit(NamedTuple):
    """What an image is shrunk to: the longest side in pixels, and the number of patches."""

    side: int
    patches: int


class _Patches(NamedTuple):
    """Tokens per patch, and the limits of each `detail`."""

    multiplier: float
    low: _Limit
    high: _Limit
    original: _Limit
    auto: _Limit


def _same_limit(multiplier: float, limit: _Limit) -> _Patches:
    return _Patches(multiplier, limit, limit, limit, limit)


_SMALL, _MEDIUM, _LARGE = _Limit(2048, 1_536), _Limit(2048, 2_500), _Limit(2048, 6_144)
_ORIGINAL, _UNLIMITED = _Limit(6000, 10_000), _Limit(65_535, 30_000)
_LOW = _Limit(512, 256)

_NEWEST = _Patches(1.2, low=_LOW, high=_MEDIUM, original=_UNLIMITED, auto=_UNLIMITED)

#: The rule of each model. The longest of these names decides that is a word of the model's name, or begins one.
_RULES: dict[str, _Tiles | _Patches] = {
    "gpt-": _NEWEST,
    "gpt-4": _Tiles(85, 170),  # gpt-4o, gpt-4.1, gpt-4.5, gpt-4-turbo
    "chatgpt-4": _Tiles(85, 170),
    "gpt-4o-mini": _Tiles(2833, 5667),
    "gpt-4.1-mini": _same_limit(1.62, _LARGE),
    "gpt-4.1-nano": _same_limit(2.46, _SMALL),
    "gpt-5": _Tiles(70, 140),
    "gpt-5.": _NEWEST,
    "gpt-5.1": _Tiles(70, 140),
    "gpt-5-mini": _same_limit(1.2, _SMALL),
    "gpt-5-nano": _same_limit(1.5, _SMALL),
    "gpt-5.2": _same_limit(1.2, _LARGE),
    "gpt-5.3": _same_limit(1.2, _LARGE),
    "gpt-5.4": _Patches(1.2, low=_LARGE, high=_MEDIUM, original=_ORIGINAL, auto=_MEDIUM),
    "gpt-5.5": _Patches(1.2, low=_LOW, high=_MEDIUM, original=_ORIGINAL, auto=_ORIGINAL),
    "o1": _Tiles(75, 150),
    "o3": _Tiles(75, 150),
    "o4-mini": _same_limit(1.72, _SMALL),
    "computer-use": _Tiles(65, 129),
}
_UNKNOWN = _NEWEST._replace(multiplier=2.46)
_NAME = re.compile("|".join(rf"(?<![a-z0-9]){re.escape(name)}" for name in sorted(_RULES, key=len, reverse=True)))


@lru_cache(maxsize=1024)
def image_tokens(model: str, width: int, height: int, detail: str = "auto") -> int:
    """Return the input tokens of an image. An unknown `detail` counts as `auto`."""
    rule = _rule_of(model)
    if isinstance(rule, _Tiles):
        return rule.base if detail == "low" else rule.base + rule.tile * _tiles(width, height)
    limits = {"low": rule.low, "high": rule.high, "original": rule.original}
    # The small excess of a float must not cost a token: 1.2 * 2500 is 3000.
    return ceil(_patches(width, height, limits.get(detail, rule.auto)) * rule.multiplier - 1e-6)


@lru_cache(maxsize=1024)
def _rule_of(model: str) -> _Tiles | _Patches:
    names = _NAME.findall(model.lower())
    return _RULES[max(names, key=len)] if names else _UNKNOWN


def _tiles(width: int, height: int) -> int:
    scale = min(1, _SQUARE / max(width, height))
    scale *= min(1, _SHORT_SIDE / (min(width, height) * scale))
    # rounded before it is rounded down, because a float may be just below an integer
    sides = (max(1, floor(round(side * scale, 6))) for side in (width, height))
    return prod(ceil(side / _TILE) for side in sides)


def _patches(width: int, height: int, limit: _Limit) -> int:
    scale = min(1, limit.side / max(width, height))
    sides = [max(1.0, round(side * scale)) for side in (width, height)]
    patches = prod(ceil(side / _PATCH) for side in sides)
    if patches <= limit.patches:
        return patches
    shrink = sqrt(_PATCH**2 * limit.patches / (sides[0] * sides[1]))
    in_patches = [side * shrink / _PATCH for side in sides]
    shrink *= min(max(1, floor(count)) / count for count in in_patches)
    return min(limit.patches, prod(ceil(floor(round(side * shrink, 6)) / _PATCH) or 1 for side in sides))
