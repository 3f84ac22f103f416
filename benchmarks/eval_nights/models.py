"""Simulated models: for each night, which cases are answered right.

The gate's settings were chosen with `unsteady`, `beta` and `noisy`, in which every answer is drawn independently. The
other models break this assumption in ways that real models may. The gate looks at the spread of earlier totals because
of `clusters`; nothing was chosen to suit `drift` and `moods`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: nights x cases: whether an answer is right
Nights = NDArray[np.bool_]

#: (number of cases, number of nights, random) -> chance of a right answer, nights x cases
Model = Callable[[int, int, np.random.Generator], Nights]

#: Number of nights that are drawn in addition to those after a change.
SPARE_NIGHTS = 24

#: (nights after a change if it had no effect, those of another model, random) -> nights after the change; SPARE_NIGHTS
#: of each come first, and are discarded afterwards
AcceptedChange = Callable[[Nights, Nights, np.random.Generator], Nights]

#: share of the steady cases that the model answers right
RIGHT_SHARE = 0.9


def unsteady(flips: float) -> Model:
    """Return a model that varies in some cases, so that this share of all answers differs between two nights.

    Most cases are always right or always wrong. The others have a chance from 0.1 to 0.95 each.
    """

    def nights(cases: int, count: int, rng: np.random.Generator) -> Nights:
        return _draw(_unsteady_chances(cases, flips, rng), count, rng)

    return nights


def beta(cases: int, count: int, rng: np.random.Generator) -> Nights:
    """Return nights of a model with chances from Beta(0.8, 0.15): 84 % right, 13 % of its answers flip."""
    return _draw(rng.beta(0.8, 0.15, cases), count, rng)


def noisy(cases: int, count: int, rng: np.random.Generator) -> Nights:
    """Return nights of a model that answers every case right with a chance of 0.84: 27 % of its answers flip."""
    return _draw(np.full(cases, 0.84), count, rng)


def clusters(cases: int, count: int, rng: np.random.Generator) -> Nights:
    """Return nights in which groups of three cases are right or wrong together; 5 % of the answers flip."""
    groups = -(-cases // 3)
    return np.repeat(_draw(_unsteady_chances(groups, 0.05, rng), count, rng), 3, axis=1)[:, :cases]


def drift(cases: int, count: int, rng: np.random.Generator) -> Nights:
    """Return nights in which the chances of unsteady cases wander; 5 % of the answers flip between two nights."""
    chances = np.clip(_unsteady_chances(cases, 0.05, rng), 1e-4, 1 - 1e-4)
    logits = np.log(chances / (1 - chances))
    steps = np.cumsum(rng.normal(0, 0.25, (count, cases)), axis=0)[::-1]
    return rng.random((count, cases)) < 1 / (1 + np.exp(-logits - steps))


def moods(cases: int, count: int, rng: np.random.Generator) -> Nights:
    """Return nights of a model that is a bit better or worse in all its unsteady cases on each night."""
    chances = np.clip(_unsteady_chances(cases, 0.05, rng), 1e-4, 1 - 1e-4)
    logits = np.log(chances / (1 - chances)) + rng.normal(0, 0.2, (count, 1))
    return rng.random((count, cases)) < 1 / (1 + np.exp(-logits))


def change_nothing(nights: Nights, other_model: Nights, rng: np.random.Generator) -> Nights:
    """Return the nights after a change without effect."""
    return nights


def add_noise(nights: Nights, other_model: Nights, rng: np.random.Generator) -> Nights:
    """Return the nights after a change since which every answer is reversed with a chance of 0.1."""
    return nights ^ (rng.random(nights.shape) < 0.1)


def fix_and_break(nights: Nights, other_model: Nights, rng: np.random.Generator) -> Nights:
    """Return the nights after a change that fixed 30 cases or fewer, and broke 20: they are always right or wrong."""
    share = nights.mean(axis=(0, 1))
    fixed = rng.permutation(np.flatnonzero(share < 0.5))[:30]
    broken = rng.permutation(np.flatnonzero(share > 0.5))[:20]
    nights[..., fixed], nights[..., broken] = True, False
    return nights


def swap_model(nights: Nights, other_model: Nights, rng: np.random.Generator) -> Nights:
    """Return the nights after another model took the place of this one."""
    return other_model


def accept_luck(nights: Nights, other_model: Nights, rng: np.random.Generator) -> Nights:
    """Return the nights after the best of 25 nights was accepted as an improvement, though nothing had changed."""
    candidates = nights[: SPARE_NIGHTS + 1]
    best = int(candidates.sum(axis=(1, 2)).argmax())
    nights[[best, SPARE_NIGHTS]] = nights[[SPARE_NIGHTS, best]]
    return nights


def _unsteady_chances(cases: int, flips: float, rng: np.random.Generator) -> Floats:
    chances = (rng.random(cases) < RIGHT_SHARE).astype(float)
    drawn = rng.uniform(0.1, 0.95, cases)
    expected_flips = np.cumsum(2 * drawn * (1 - drawn))
    count = int(np.searchsorted(expected_flips, flips * cases)) + 1
    chances[rng.permutation(cases)[:count]] = drawn[:count]
    return chances


def _draw(chances: Floats, count: int, rng: np.random.Generator) -> Nights:
    return rng.random((count, len(chances))) < chances
