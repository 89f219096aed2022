"""The transition table of a run's life, which `docs/concepts/runs.md` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from wakeline.gateway.following.life.effects import Effect
from wakeline.gateway.following.life.phases import Life, Now, Phase

AGAIN_SECONDS: Final = 1.0
"""Seconds between two attempts to read a stream to its end."""

Step: TypeAlias = tuple[Life, tuple[Effect, ...]]
Apply: TypeAlias = Callable[[Life, Now, Any], Step]


class Rule(NamedTuple):
    """A row of the table.

    Attributes:
        apply: Decides on the next step.
        leads: The phases that it leads to, each with the reason.
    """

    apply: Apply
    leads: Mapping[Phase, str]


RULES: Final[dict[tuple[Phase, type], Rule]] = {}


def rule(phase: Phase, observation: type, leads: Mapping[Phase, str]) -> Callable[[Apply], Apply]:
    """Enter a function into the table: it decides on this observation in this phase."""

    def enter(apply: Apply) -> Apply:
        RULES[phase, observation] = Rule(apply, leads)
        return apply

    return enter


def picture() -> str:
    """Return the table as a Mermaid diagram; a phase that is kept is not drawn."""
    reasons: dict[tuple[Phase, Phase], dict[str, None]] = {}
    for (phase, _), row in sorted(RULES.items(), key=lambda row: list(Phase).index(row[0][0])):
        for lead, why in row.leads.items():
            if lead is not phase:
                reasons.setdefault((phase, lead), {})[why] = None
    arrows = [f"  {_state(phase)} --> {_state(lead)}: {'<br/>'.join(whys)}" for (phase, lead), whys in reasons.items()]
    return "\n".join(["stateDiagram-v2", "  [*] --> waiting: the run is registered", *arrows])


def _state(phase: Phase) -> str:
    return "[*]" if phase is Phase.DONE else phase.name.lower()
