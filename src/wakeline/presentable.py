"""Converts any value to JSON's types: replaces what JSON cannot hold, and never raises.

A model or a tool may return a list that contains itself, a thousand nested lists, an object whose `__str__` raises, or half an
emoji. Publishing such a value must not fail the run.
"""

from __future__ import annotations

import dataclasses
import math
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from enum import Enum
from typing import Any, Final, TypeVar

from wakeline.text import whole

T = TypeVar("T")

DEEPEST: Final = 64
"""The most levels of nested lists and objects, which leaves room for the levels around the value."""

_MOST_VALUES: Final = 100_000
_LARGEST: Final = 2**63
_TOO_DEEP: Final = "… (too deep)"
_TOO_MANY: Final = "… (too much)"
_ITSELF: Final = "… (itself)"


def presentable(value: Any, read: Callable[[Any], Any] | None = None) -> Any:
    """Return a value as `None`, booleans, numbers, strings, lists and dictionaries alone.

    Args:
        value: Any value.
        read: Converts other objects, such as pydantic models, and may raise; `model_dump` or `str` by default.
    """
    return _Presenting(read or _read).of(value, 0)


def said(value: Any) -> str:
    """Return `str(value)`, or the name of its type if that fails."""
    try:
        return whole(str(value))
    except Exception:  # noqa: BLE001  an object's `__str__` may raise anything
        return f"<{type(value).__name__}>"


def has_half(error: Exception) -> bool:
    """Return whether half a surrogate pair in a value caused the error."""
    return isinstance(error, UnicodeEncodeError) or "surrogates not allowed" in said(error)


def converted(convert: Callable[[Any], T], value: Any) -> T:
    """Convert a value; replace half a surrogate pair by U+FFFD if it makes the conversion fail."""
    try:
        return convert(value)
    except Exception as error:
        if not has_half(error):
            raise
    return convert(presentable(value))


class _Presenting:
    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read
        self._left = _MOST_VALUES
        self._inside: set[int] = set()

    def of(self, value: Any, depth: int) -> Any:
        try:
            return self._of(value, depth)
        except Exception:  # noqa: BLE001  a property or an iterator may raise anything
            return said(value)

    def _of(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self.of(value.value, depth)
        if isinstance(value, str):
            return whole(str.__str__(value))
        if isinstance(value, int):
            return int(value) if -_LARGEST <= value < _LARGEST else said(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, (bytes, bytearray, memoryview)):
            return b64encode(value).decode()
        if isinstance(value, (date, time)):
            return value.isoformat()
        return self._within(value, depth)

    def _within(self, value: Any, depth: int) -> Any:
        """Convert a value that may contain others."""
        if depth >= DEEPEST:
            return _TOO_DEEP
        if id(value) in self._inside:
            return _ITSELF
        self._inside.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._members(value.items(), depth)
            if isinstance(value, (list, tuple, set, frozenset, deque)):
                return self._items(value, depth)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = dataclasses.fields(value)
                return self._members([(field.name, getattr(value, field.name)) for field in fields], depth)
            read = self._read(value)
            return said(value) if read is value else self.of(read, depth + 1)
        finally:
            self._inside.discard(id(value))

    def _members(self, members: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for name, value in members:
            if not self._count():
                shown["…"] = _TOO_MANY
                break
            key = name.value if isinstance(name, Enum) else name
            shown[said(key)] = self.of(value, depth + 1)
        return shown

    def _items(self, items: Iterable[Any], depth: int) -> list[Any]:
        shown: list[Any] = []
        for item in items:
            if not self._count():
                shown.append(_TOO_MANY)
                break
            shown.append(self.of(item, depth + 1))
        return shown

    def _count(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _read(value: Any) -> Any:
    """Return the members of a pydantic or msgspec model, or the object's text."""
    if (dump := getattr(value, "model_dump", None)) is not None:
        return dump()
    if (names := getattr(value, "__struct_fields__", None)) is not None:
        return {name: getattr(value, name) for name in names}
    return said(value)
