"""JSON Schemas that users write, and the check of a value against one, within bounds.

A schema and a value may come from anybody, and are checked in the event loop. So `$ref` refers to the schema itself only,
patterns are matched in linear time, and the number of subschemas is limited with every `$ref` replaced by its target:
a chain of references doubles the work with each link. The steps of a check are counted before it begins
(`schema_steps.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs
import msgspec

from wakeline.errors import SchemaInvalidError, ValueInvalidError
from wakeline.schema_steps import MAX_SCHEMA_STEPS, MAX_STEPS, Steps, patterns_of, steps_for, steps_of

MAX_SCHEMA_BYTES: Final = 16 * 1024
MAX_SUBSCHEMAS: Final = 500
MAX_LEVELS: Final = 50
"""The most levels of subschemas, references included, so that a schema that contains itself is refused."""

MAX_PATTERNS: Final = 50
"""The most patterns, each counted wherever a reference repeats it: a pattern may take 0.2 ms to compile."""

_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
# Values, and definitions, which count where a reference names them.
_PASSED_OVER: Final = frozenset({"const", "enum", "default", "examples", "$defs", "definitions"})
_REFUSED: Final = frozenset(
    # They change what a reference means, and would make its target another one than `_target` returns.
    {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"}
    # They check their sibling subschemas again, so that each level of them doubles the work.
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_MAX_SHOWN: Final = 300
_MASK: Final = "it"
"""Stands for the value in messages, which may be long or confidential."""

# The words of the only part of the metaschema with an anyOf, which is `type`.
_UNKNOWN_TYPE: Final = "it is not valid under any of the schemas listed in the 'anyOf' keyword"

_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=64 * 1024, dfa_size_limit=256 * 1024)


class Schema:
    """A JSON Schema, of draft 2020-12 unless its `$schema` names another one.

    `format` is an annotation, as in that draft, and checks nothing.

    Args:
        schema: The schema, an object or a boolean.

    Raises:
        SchemaInvalidError: It is not a valid schema, or exceeds the limits.
    """

    __slots__ = ("_steps", "_validator")

    def __init__(self, schema: Any) -> None:
        if not isinstance(schema, dict | bool):
            raise SchemaInvalidError(f"expected a JSON Schema, an object, got {_short(repr(schema))}")
        try:
            if (size := len(msgspec.json.encode(schema))) > MAX_SCHEMA_BYTES:
                raise SchemaInvalidError(f"expected a JSON Schema of at most {MAX_SCHEMA_BYTES} bytes, got {size}")
            self._steps = _check_size(schema)
            self._validator = jsonschema_rs.validator_for(
                schema, offline=True, validate_formats=False, pattern_options=_PATTERNS, mask=_MASK
            )
        except jsonschema_rs.ValidationError as error:
            place = "".join(f"[{step!r}]" for step in error.instance_path)
            message = f"schema{place}: {error.message.replace(_UNKNOWN_TYPE, 'it is not a type that JSON has')}"
        except (TypeError, ValueError) as error:
            message = str(error)
        else:
            return
        raise SchemaInvalidError(f"expected a valid JSON Schema, got one with an error: {_short(message)}")

    def check(self, value: Any, what: str = "value") -> None:
        """Raise unless the schema allows a value.

        Args:
            value: The decoded JSON.
            what: Names the value in the error. Default: value.

        Raises:
            ValueInvalidError: The schema does not allow it, or the check would take too long.
        """
        if steps_for(value, self._steps) > MAX_STEPS:
            raise ValueInvalidError(
                f"expected {what} whose check takes at most {MAX_STEPS} steps, got one that takes more:"
                f" its JSON Schema takes {self._steps.part} for each part and {self._steps.byte} for each byte of text",
                hint="Send a smaller value, or use a schema with fewer subschemas, values and patterns.",
            )
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            place = "".join(f"[{step!r}]" for step in error.instance_path)
            raise ValueInvalidError(
                f"expected {what} to be as its JSON Schema says, got {_short(f'{what}{place}: {error.message}')}"
            ) from None


def _check_size(schema: Any) -> Steps:
    """Return the steps of a schema, with references followed.

    Raises:
        SchemaInvalidError: It has too many subschemas, patterns or levels, or takes too many steps.
    """
    left, patterns, part, byte = MAX_SUBSCHEMAS, 0, 0, 0
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        one, level = waiting.pop()
        left -= 1
        if left < 0:
            raise SchemaInvalidError(f"expected a JSON Schema of at most {MAX_SUBSCHEMAS} subschemas, got more")
        patterns += len(patterns_of(one))
        if patterns > MAX_PATTERNS:
            raise SchemaInvalidError(f"expected a JSON Schema of at most {MAX_PATTERNS} patterns, got more")
        if level > MAX_LEVELS:
            raise SchemaInvalidError(
                f"expected at most {MAX_LEVELS} levels of subschemas, got more, or a schema that refers to itself"
            )
        steps = steps_of(one)
        part, byte = part + steps.part, byte + steps.byte
        waiting += ((below, level + 1) for below in _below(schema, one))
    if part > MAX_SCHEMA_STEPS:
        raise SchemaInvalidError(
            f"expected a JSON Schema of at most {MAX_SCHEMA_STEPS} steps for each part of a value, got {part}"
        )
    return Steps(part, byte)


def _below(root: Any, schema: Any) -> Iterator[Any]:
    """Yield the subschemas of a schema, and the target of its reference."""
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name in _REFUSED:
            raise SchemaInvalidError(f"expected a JSON Schema without {name}, got one")
        if name == "$ref":
            yield _target(root, value)
        elif name in _MAPS and isinstance(value, dict):
            yield from value.values()
        elif name not in _PASSED_OVER:
            yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict))


def _target(root: Any, reference: Any) -> Any:
    """Return the part of a schema that a reference names.

    Raises:
        SchemaInvalidError: It names something else.
    """
    found = root
    if not isinstance(reference, str) or reference[:1] != "#" or reference[1:2] not in ("", "/"):
        raise SchemaInvalidError(
            f"expected a $ref within the schema, such as #/$defs/name, got {_short(repr(reference))}"
        )
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            raise SchemaInvalidError(f"expected the target of $ref {_short(repr(reference))} in the schema, got none")
    return found


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
