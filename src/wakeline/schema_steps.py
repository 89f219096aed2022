"""Counts the most steps of checking a value against a JSON Schema, before the check.

A step takes up to 20 ns. A subschema is applied to each part of a value at most once, so the steps are those of all
subschemas for a part, times the parts, and those of the patterns for a byte, times the bytes. The figures were measured
with the slowest schemas that could be found (`docs/decisions/0031`).
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, NamedTuple

MAX_STEPS: Final = 500_000
"""The most steps of one check: 10 ms, in which the event loop does nothing else."""

MAX_SCHEMA_STEPS: Final = 25_000
"""The most steps of a schema for each part, so that a value of 20 parts can be checked."""

_UNUSED: Final = frozenset({"default", "examples", "title", "description", "$comment", "$defs", "definitions"})
_STEPS: Final = {"multipleOf": 100, "uniqueItems": 100}  # both calculate with exact numbers, or hash whole parts
_DECODED: Final = frozenset({"contentEncoding", "contentMediaType"})  # which drafts before 2019-09 check
_PATTERN_STEPS: Final = 20
_CONTAINER_STEPS: Final = 50  # comparing with an array or an object
_STATES_OF_STEP: Final = 4  # of an automaton, for each byte
_MOST_STATES: Final = 4096  # the size limit of a compiled pattern refuses more

# The parts of a pattern: an escape, a class (one in another counts as two), a count, a bracket, or any other character.
_TOKENS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*)(?:,(\d*))?\}|.", re.DOTALL)


class Steps(NamedTuple):
    """The most steps of a schema.

    Attributes:
        part: Steps for each part of the value: a member's name, or a value within it.
        byte: Steps for each byte of strings, and of numbers beyond 64 bits.
    """

    part: int
    byte: int


def steps_of(schema: Any) -> Steps:
    """Return the steps of a schema itself, without its subschemas."""
    if not isinstance(schema, dict):
        return Steps(1, 0)
    part, byte = 1, 0
    for name, value in schema.items():
        if name in _UNUSED:
            continue
        part += 1 + _STEPS.get(name, 0)
        if name in ("enum", "const"):
            part += sum(_CONTAINER_STEPS if isinstance(one, list | dict) else 1 for one in _listed(value))
        elif isinstance(value, list | dict):
            part += 2 * len(value)
        if name in ("dependentRequired", "dependencies") and isinstance(value, dict):
            part += sum(len(names) for names in value.values() if isinstance(names, list))
        if name == "multipleOf":
            byte += _STEPS[name]
        byte += name in _DECODED
    for pattern in patterns_of(schema):
        part += _PATTERN_STEPS
        byte += 1 + _states(pattern) // _STATES_OF_STEP
    return Steps(part, byte)


def patterns_of(schema: Any) -> list[str]:
    """Return the patterns of a schema itself, without its subschemas."""
    if not isinstance(schema, dict):
        return []
    own, named = schema.get("pattern"), schema.get("patternProperties")
    return [*([own] if isinstance(own, str) else []), *(named if isinstance(named, dict) else [])]


def steps_for(value: Any, steps: Steps) -> int:
    """Return the most steps of checking a value.

    The count ends above `MAX_STEPS`.
    """
    total, waiting = 0, [value]
    while waiting and total <= MAX_STEPS:
        one = waiting.pop()
        total += steps.part
        if isinstance(one, dict):
            total += steps.part * len(one) + steps.byte * sum(map(len, one))
            waiting += one.values()
        elif isinstance(one, list):
            if (len(one) + 1) * steps.part > MAX_STEPS:
                return (len(one) + 1) * steps.part
            waiting += one
        else:
            total += steps.byte * _bytes(one)
    return total


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _states(pattern: str) -> int:
    """Return about the states of a pattern's automaton: counts repeat what is before them."""
    sums, last = [0], 0  # of each group that is open; and of what a count would repeat
    for token in _TOKENS.finditer(pattern):
        text = token.group()
        if text == "(":
            sums.append(0)
            last = 0
        elif text == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        elif token.lastindex:
            times = max(int(each[:6]) for each in (token.group(1), token.group(2), "1") if each)
            sums[-1] += last * (times - 1)
            last *= times
        elif text not in "*+?|^$":
            last = 1
            sums[-1] += 1
    return min(sum(sums), _MOST_STATES)


def _bytes(value: Any) -> int:
    """Return the bytes of a string, or of a number beyond 64 bits in exact arithmetic."""
    if isinstance(value, str):
        return len(value) if value.isascii() else 3 * len(value)
    if isinstance(value, float) and math.isfinite(value):
        bits = abs(math.frexp(value)[1])
    else:
        bits = value.bit_length() if isinstance(value, int) else 0
    return bits // 8 if bits > 64 else 0
