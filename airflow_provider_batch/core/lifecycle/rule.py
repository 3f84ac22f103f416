"""A rule, and the two ways to apply a table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from airflow_provider_batch.core.ledger.state import Phase
from airflow_provider_batch.core.lifecycle.situation import Plan, Situation, Stage

#: what a rule looks at: a job as a whole, and one shard of it or the plan so far
Whole = TypeVar("Whole", bound=Situation)
Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Rule(Generic[Whole, Part, Result]):
    """A condition and the consequence if it holds. Both are pure functions. The texts are shown in the docs."""

    condition_text: str
    condition: Callable[[Whole, Part], bool]
    consequence_text: str
    consequence: Callable[[Whole, Part], Result]
    #: the phases of a shard, or the stages of a job, to which the rule applies; empty for all of them
    scope: tuple[Phase, ...] | tuple[Stage, ...] = ()


def choose(rules: Iterable[Rule[Whole, Part, Result]], whole: Whole, part: Part) -> Result:
    """Return the consequence of the first rule whose condition holds. The last rule of such a table always holds."""
    for rule in rules:
        if rule.condition(whole, part):
            return rule.consequence(whole, part)
    raise AssertionError("The last rule of a table must always hold.")


def accumulate(rules: Iterable[Rule[Whole, Plan, Plan]], whole: Whole, plan: Plan) -> Plan:
    """Apply every rule whose condition holds, in order. Each rule sees the plan that the rules before it have made."""
    for rule in rules:
        if rule.condition(whole, plan):
            plan = Plan.sum([plan, rule.consequence(whole, plan)])
    return plan


def always(whole: Situation, part: object) -> bool:
    """Return True: the condition of the last rule of a table."""
    return True
