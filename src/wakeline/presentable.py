"""Any value as JSON can say it: what JSON cannot say has a stand-in, and nothing raises.

What a model or a tool gives is anything: a list that holds itself, a thousand lists in each other, an object whose `__str__`
fails, half an emoji. To show it must not fail the run that it comes from.
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
"""Lists and objects in each other that are shown; it leaves room for what a value is put into."""

_MOST_VALUES: Final = 100_000
_LARGEST: Final = 2**63
_TOO_DEEP: Final = "… (too deep)"
_TOO_MANY: Final = "… (too much)"
_ITSELF: Final = "… (itself)"


def presentable(value: Any, read: Callable[[Any], Any] | None = None) -> Any:
    """Return a value as `None`, booleans, numbers, strings, lists and dictionaries alone.

    Args:
        value: Anything.
        read: Reads what is none of these, such as a model of pydantic; by default its own `model_dump`, or `str`. It may raise.
    """
    return _Presenting(read or _read).of(value, 0)


def said(value: Any) -> str:
    """Return `str(value)`; the name of its type where that fails."""
    try:
        return whole(str(value))
    except Exception:  # noqa: BLE001  an object may do anything when it is asked
        return f"<{type(value).__name__}>"


def has_half(error: Exception) -> bool:
    """Whether a value could not be written for half of a surrogate pair in it."""
    return isinstance(error, UnicodeEncodeError) or "surrogates not allowed" in said(error)


def converted(convert: Callable[[Any], T], value: Any) -> T:
    """Return what a converter makes of a value; of one with half a surrogate pair in it, with U+FFFD in its place."""
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
        except Exception:  # noqa: BLE001  as above
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
        """A value that may hold others."""
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
    """Models of pydantic and msgspec know what they hold."""
    if (dump := getattr(value, "model_dump", None)) is not None:
        return dump()
    if (names := getattr(value, "__struct_fields__", None)) is not None:
        return {name: getattr(value, name) for name in names}
    return said(value)
