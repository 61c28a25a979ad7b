"""Conditions of objects of Knative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lithops_mini.emulators.knative.kinds import Object
from lithops_mini.emulators.knative.store import now

State = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Condition:
    type: str
    state: State = "Unknown"
    reason: str = ""
    message: str = ""
    info: bool = False  # of no weight for ``Ready``


def written(wanted: Sequence[Condition], before: Sequence[Object]) -> list[Object]:
    """Conditions as they are stored, with ``Ready``: as bad as the worst of them, and with its reason."""
    weighty = [each for each in wanted if not each.info]
    rank = {"False": 0, "Unknown": 1, "True": 2}
    worst = min(weighty, key=lambda each: (rank[each.state], not each.reason))
    ready = Condition("Ready", "True")
    if worst.state != "True":
        ready = Condition("Ready", worst.state, worst.reason, worst.message)
    times = {(each["type"], each["status"]): each["lastTransitionTime"] for each in before}
    made = []
    for each in sorted([*wanted, ready], key=lambda condition: condition.type):
        one = {"type": each.type, "status": each.state}
        one["lastTransitionTime"] = times.get((each.type, each.state)) or now()
        one |= {"severity": "Info"} if each.info else {}
        one |= {"reason": each.reason} if each.reason else {}
        one |= {"message": each.message} if each.message else {}
        made.append(one)
    return made


def condition(found: Object, type_: str = "Ready") -> Condition:
    """One that an object has; unknown if it has none."""
    for each in found.get("status", {}).get("conditions", ()):
        if each["type"] == type_:
            return Condition(type_, each["status"], each.get("reason", ""), each.get("message", ""))
    return Condition(type_)
