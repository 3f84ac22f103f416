"""What is simulated: the noise of a model, its history, and what breaks. `SCENARIOS` has the rows of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.eval_nights import models
from benchmarks.eval_nights.models import AcceptedChange, Model

#: tags of the cases; the first has SMALL_TAG cases, the others share the rest
TAGS = ("rare", "negation", "dates", "units", "arithmetic", "extraction", "long", "unicode", "ambiguous")
SMALL_TAG = 20


def tag_of(number: int) -> str:
    """Return the tag of a case."""
    return TAGS[0] if number < SMALL_TAG else TAGS[1 + number % (len(TAGS) - 1)]


@dataclass(frozen=True)
class Scenario:
    """One row of the table."""

    name: str
    model: Model
    #: number of accepted runs to compare with
    runs: int = 10
    #: number of accepted runs before an accepted change, and what the change did
    older_runs: int = 0
    accepted_change: AcceptedChange = models.change_nothing
    #: whether the runs before the change count at all
    uses_older_runs: bool = True
    cases: int = 400
    #: number of models per run; one of them breaks
    variants: int = 1
    repeats: int = 1
    #: whether only cases that flipped on the nights before are sent more than once
    repeats_only_flipped: bool = False
    #: number of cases that break, and that are fixed elsewhere
    broken: int = 20
    fixed: int = 0
    #: whether the broken cases all have the small tag
    in_small_tag: bool = False
    #: share of the verdicts of a judge that are wrong, and the number of judges, who err independently
    judge_errors: float = 0.0
    judges: int = 1
    #: Share of the answers with a new text. The others have the text of an earlier answer, right or wrong, to the same
    #: case, and its verdict.
    new_texts: float = 1.0
    #: share of nights to find (with `fixed`: to find in both directions)
    goal: float | None = None
    #: whether nothing was chosen to suit this row
    unseen: bool = False


STEADY = models.unsteady(0.05)
NOISE = (("5 % flips", STEADY), ("Beta(0.8, 0.15)", models.beta))


def repeats_of_flipped(noise: str, model: Model, runs: int) -> Scenario:
    """Return a scenario in which each case that flipped on an earlier night is sent three times."""
    name = f"three repeats of flipped cases, {runs} runs: {noise}"
    return Scenario(name, model, runs=runs, repeats=3, repeats_only_flipped=True)


def after_change(effect: str, accepted_change: AcceptedChange) -> Iterator[Scenario]:
    """Yield a scenario per noise model: one accepted run since an accepted change, and nine runs before it."""
    for noise, model in NOISE:
        name = f"accepted change {effect}: {noise}"
        yield Scenario(name, model, runs=1, older_runs=9, accepted_change=accepted_change)


SCENARIOS = (
    Scenario("5 % flips, one accepted run", STEADY, runs=1, goal=0.9),
    Scenario("5 % flips, ten accepted runs", STEADY),
    Scenario("Beta(0.8, 0.15), ten accepted runs", models.beta, goal=0.95),
    Scenario("Beta(0.8, 0.15), one accepted run", models.beta, runs=1, goal=0.7),
    Scenario("every case noisy (27 % flips)", models.noisy, goal=0.75),
    Scenario("every case noisy (27 % flips), three repeats", models.noisy, repeats=3),
    *(repeats_of_flipped(noise, model, runs) for noise, model in NOISE for runs in (2, 4, 10)),
    Scenario("half of a 20-case tag breaks", STEADY, broken=10, in_small_tag=True, goal=0.9),
    Scenario("half of a 20-case tag breaks, one accepted run", STEADY, runs=1, broken=10, in_small_tag=True, goal=0.9),
    Scenario("20 broken, 20 fixed: 5 % flips", STEADY, fixed=20, goal=0.9),
    Scenario("20 broken, 20 fixed: Beta(0.8, 0.15)", models.beta, fixed=20, goal=0.9),
    Scenario("the judge is wrong in 5 % of verdicts", STEADY, judge_errors=0.05, goal=0.95),
    Scenario("the judge is wrong in 10 % of verdicts", STEADY, judge_errors=0.1, goal=0.8),
    Scenario("judge wrong in 5 %, verdicts reused", STEADY, judge_errors=0.05, new_texts=0, goal=0.95),
    Scenario("judge wrong in 10 %, verdicts reused", STEADY, judge_errors=0.1, new_texts=0, goal=0.8),
    Scenario("judge wrong in 10 %, half of the texts are new", STEADY, judge_errors=0.1, new_texts=0.5, goal=0.8),
    Scenario("three judges wrong in 10 %", STEADY, judge_errors=0.1, judges=3, goal=0.8),
    Scenario("three judges wrong in 10 %, verdicts reused", STEADY, judge_errors=0.1, judges=3, new_texts=0, goal=0.8),
    Scenario("2,000 cases, 8 models, 5 points", STEADY, cases=2_000, variants=8, broken=100),
    Scenario("2,000 cases, 8 models, 1 point", STEADY, cases=2_000, variants=8, broken=20),
    *after_change("changed nothing", models.change_nothing),
    *after_change("added noise", models.add_noise),
    *after_change("fixed 30 and broke 20", models.fix_and_break),
    *after_change("swapped the model", models.swap_model),
    *after_change("was only luck", models.accept_luck),
    Scenario("clusters of 3 flip together", models.clusters, goal=0.9),
    Scenario("clusters of 3, one accepted run", models.clusters, runs=1, goal=0.9),
    Scenario("clusters of 3, 20 broken, 20 fixed", models.clusters, fixed=20, goal=0.9),
    Scenario("unseen: chances drift", models.drift, unseen=True, goal=0.9),
    Scenario("unseen: chances drift, one accepted run", models.drift, runs=1, unseen=True, goal=0.9),
    Scenario("unseen: better and worse nights", models.moods, unseen=True, goal=0.9),
    Scenario("unseen: better and worse nights, one accepted run", models.moods, runs=1, unseen=True, goal=0.9),
)
