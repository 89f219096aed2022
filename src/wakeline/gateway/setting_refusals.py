"""Refusals of settings in words: the setting, its value, and what to write instead.

msgspec reports the first value that does not fit its type as one line, such as ``Expected `int`, got `str` - at `$.port` ``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import msgspec.inspect

from wakeline.errors import SettingsInvalidError

ENVIRONMENT: Final = "WAKELINE_"
THE_ENVIRONMENT: Final = "the environment"
# TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE, as Temporal's SDKs name them.
_NAMES_OF_TEMPORAL: Final = {"temporal_address": "temporal", "temporal_namespace": "namespace"}
_KINDS: Final = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_SAMPLES: Final = {"true or false": "true", "a whole number": "8080", "a number": "1.5"}
_SECRETS: Final = ("engine", "token_secret", "temporal_api_key", "namespaces", "channels")
_FORMS: Final = {
    "engine": ("sqlite, memory, postgres://USER@HOST/DATABASE or nats://HOST:4222", "sqlite"),
    "temporal_ui": ("a URL without user and query", "http://localhost:8233"),
    "codec_server": ("a URL without user and query", "https://codec.example"),
}
"""Settings whose value has a pattern: the pattern in words, and a value."""
_LIMITS: Final = {"<=": "at most", ">=": "at least", "<": "below", ">": "above"}


class _Fault(NamedTuple):
    """A value that msgspec refuses, and its place.

    Attributes:
        said: Its sentence, without the place.
        place: The place as a path, such as `follow[0].session`; empty for the top level.
        in_types: The same with `...` for a rule's name.
    """

    said: str
    place: str
    in_types: str

    @property
    def setting(self) -> str:
        return re.split(r"[.\[]", self.place)[0]


def refused(kind: type, source: str, given: Mapping[str, Any], error: msgspec.ValidationError) -> SettingsInvalidError:
    """Return the refusal of values that do not fit the settings.

    Args:
        kind: The class of the settings.
        source: Where the values come from.
        given: The values.
        error: The error that they raise.
    """
    fault = _fault(kind, given, str(error))
    return SettingsInvalidError(f"in {source}: {_in_words(kind, given, fault)}", hint=_hint(kind, source, given, fault))


def meant(name: str, known: Iterable[str]) -> str:
    """Return the question whether the closest known name was meant; empty if none is close."""
    known = list(known)
    bare = name.lower().removeprefix(ENVIRONMENT.lower())
    close = [one for one in known if one.lower().removeprefix(ENVIRONMENT.lower()) == _NAMES_OF_TEMPORAL.get(bare)]
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _fault(kind: type, given: Mapping[str, Any], line: str) -> _Fault:
    said, _, place = line.partition(" - at `$")
    named = _with_rule(kind, given, line).partition(" - at `$")[2]
    return _Fault(said, named.rstrip("`").lstrip("."), place.rstrip("`").lstrip("."))


def _with_rule(kind: type, given: Mapping[str, Any], said: str) -> str:
    """Return what msgspec says of a rule, such as `at $.notify[...]`, with the rule's name."""
    found = re.search(r"at `\$\.([\w.]+)\[\.\.\.\]", said)
    if found is None:
        return said
    tables = found[1].split(".")
    rules: Any = given
    for table in tables:
        rules = rules[table]
    for name, rule in rules.items():
        alone: Any = {name: rule}
        for table in reversed(tables):
            alone = {table: alone}
        try:
            msgspec.convert(alone, kind)
        except msgspec.ValidationError as error:
            if str(error) == said:
                return said.replace("[...]", f".{name}", 1)
    return said


def _in_words(kind: type, given: Mapping[str, Any], fault: _Fault) -> str:
    said, place, got = fault.said, fault.place, _got(given, fault)
    if unknown := re.match(r"Object contains unknown field `(.+)`", said):
        return f"expected a member of {place}, got {unknown[1]!r}" if place else f"unknown setting {unknown[1]!r}"
    if missing := re.match(r"Object missing required field `(.+)`", said):
        return f"expected {missing[1]} in {place}, got none"
    if "matching regex" in said and place in _FORMS:
        return f"expected {_FORMS[place][0]} for {place}, got {_form_of(given[place], secret=place in _SECRETS)}"
    if said.startswith("Invalid enum value"):
        return f"expected one of {', '.join(_choices(kind, fault.in_types))} for {place}{got}"
    if bound := re.match(r"Expected `\w+` (<=|>=|<|>) (\S+)$", said):
        return f"expected {place} to be {_LIMITS[bound[1]]} {bound[2]}{got}"
    if length := re.match(r"Expected `(\w+)` of length (<=|>=|<|>) (\S+)$", said):
        units = "characters" if length[1] == "str" else "entries"
        return f"expected {place} to have {_LIMITS[length[2]]} {length[3]} {units}{got}"
    if mistaken := re.match(r"Expected `(\w+)[^`]*`, got `(\w+)`", said):
        wanted = _KINDS.get(mistaken[1], mistaken[1])
        return f"expected {wanted} for {place}{got or f', got {_KINDS.get(mistaken[2], mistaken[2])}'}"
    return f"{f'{place}: ' if place else ''}{said}{got}"


def _got(given: Mapping[str, Any], fault: _Fault) -> str:
    """Return the value at fault as an end of a sentence; empty for a table, a list or a secret."""
    if not fault.place or fault.setting in _SECRETS:
        return ""
    value: Any = given
    for step in _steps(fault.place):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, Sequence) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return ""
    return "" if isinstance(value, Mapping) else f", got {value!r:.100}"


def _steps(place: str) -> list[str]:
    return re.findall(r"[^.\[\]]+|\.\.\.", place)


def _form_of(text: str, *, secret: bool) -> str:
    """Return a value that a pattern refuses, without what may be a password."""
    scheme = text.partition("://")[0]
    if not secret or text.isalnum() or not text:
        return f"{text!r:.100}"
    return f"an address with {scheme[:16]}://" if scheme.isalnum() else "something else"


def _type_at(kind: type, place: str) -> Any:
    """Return msgspec's description of the type at a path; None if the path has no one type."""
    at: Any = msgspec.inspect.type_info(kind)
    for step in _steps(place):
        if isinstance(at, msgspec.inspect.StructType):
            at = next((field.type for field in at.fields if field.encode_name == step), None)
        else:
            at = getattr(at, "value_type", None) or getattr(at, "item_type", None)
    return at


def _choices(kind: type, place: str) -> list[str]:
    return [str(value) for value in getattr(_type_at(kind, place), "values", ())]


def _hint(kind: type, source: str, given: Mapping[str, Any], fault: _Fault) -> str | None:
    """Return what to write instead; None for the class's own hint."""
    if unknown := re.match(r"Object contains unknown field `(.+)`", fault.said):
        return _hint_of_unknown(kind, given, fault, unknown[1])
    if not fault.place or source != THE_ENVIRONMENT:
        return None
    variable = ENVIRONMENT + fault.setting.upper()
    if fault.place != fault.setting:
        return f"Correct {fault.place} in the JSON of {variable}."
    mistaken = re.match(r"Expected `(bool|int|float)[^`]*`, got", fault.said)
    if mistaken:
        wanted = _KINDS[mistaken[1]]
        return f"Write {wanted} in {variable}, such as {variable}={_SAMPLES[wanted]}."
    if "matching regex" in fault.said and fault.place in _FORMS:
        return f"Write one in {variable}, such as {variable}={_FORMS[fault.place][1]}, or unset it."
    return f"Correct {variable}."


def _hint_of_unknown(kind: type, given: Mapping[str, Any], fault: _Fault, name: str) -> str:
    known = [field.encode_name for field in getattr(_type_at(kind, fault.in_types), "fields", ())]
    if fault.place:
        question = meant(name, known) or f"; its members are {', '.join(known)}."
        return f"Correct {name} in {fault.place}, or leave it out{question}"
    if isinstance(given.get(name), dict):
        return f"Settings stand at the top level of the file, not in a table: leave the line [{name}] out."
    return f"Leave {name} out, or write a setting's name, at the top level{meant(name, known)}"
