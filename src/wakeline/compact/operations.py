"""How the events of a message change its value: any number of them are one change.

A change is one of: nothing, a string that is appended, items that are appended, members that are merged, or a whole
value. Two consecutive changes combine to one of these, and the combination is associative. So a message can be folded
while it grows, and from stretches that were stored at different times.

Only the structure that an operation needs is decoded. The leaves of objects and the items of lists stay the JSON bytes
that were published, so that numbers which Python cannot represent are preserved.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from wakeline.events import MAX_DEPTH

Form: TypeAlias = Literal["none", "raw", "text", "list", "object"]

WireOp: TypeAlias = tuple[str, msgspec.Raw]

UNDECODABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""The errors that decoding raises for JSON that cannot be read."""

_TOGETHER: Final = 1024
_ITEM: Final = len(b'["json-merge",],')  # bytes of an operation beside its data
# No event is deeper. Deeper objects that an older gateway stored are replaced as a whole, not merged.
_DEEPEST: Final = MAX_DEPTH
_decode_text = msgspec.json.Decoder(str).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_ops = msgspec.json.Decoder(list[WireOp]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class Whole:
    """An object among merged members that replaces the earlier value."""

    __slots__ = ("members",)

    def __init__(self, members: dict[str, Any]) -> None:
        self.members = members


class Text:
    """A string that grows by small pieces without being copied for each of them."""

    __slots__ = ("_long", "_short")

    def __init__(self, *pieces: str) -> None:
        self._long: list[str] = []
        self._short = list(pieces)

    def append(self, piece: str) -> None:
        """Append a piece."""
        self._short.append(piece)
        if len(self._short) >= _TOGETHER:
            self._long.append("".join(self._short))
            self._short = []

    def extend(self, other: Text) -> None:
        """Append another text."""
        self.append(str(other))

    def copy(self) -> Text:
        """Return a copy that can change independently."""
        copied = Text(*self._short)
        copied._long = self._long.copy()
        return copied

    def __str__(self) -> str:
        """Return the whole string."""
        if self._long or len(self._short) > 1:
            whole = "".join((*self._long, *self._short))
            self._long, self._short = [], [whole]
        return self._short[0] if self._short else ""


class Change:
    """The effect of a stretch of a message's events on its value.

    Attributes:
        whole: The change replaces the value, whatever it was before.
        form: How the change is held; `raw` is JSON that has not been decoded, and always whole.
        size: Upper bound of its bytes as JSON.
    """

    __slots__ = ("_held", "form", "size", "whole")

    _held: Any

    def __init__(self, form: Form = "none", held: Any = None, *, whole: bool = False, size: int = 0) -> None:
        self.form: Form = form
        self.whole = whole
        self.size = size
        self._held = held

    def apply(self, op: str, data: bytes) -> None:
        """Add one event; data of another type than `op` expects replaces the value."""
        try:
            if op == "text":
                piece = _decode_text(data)
                self.size += len(data)
                if self.form == "text":
                    self._held.append(piece)
                else:
                    self._append_text(Text(piece))
            elif op == "list":
                self.size += len(data) + _ITEM
                self._append_items([data])
            elif op == "json-merge":
                patch = _patch(data)
                self.size += len(data) + _ITEM
                self._merge(patch)
            elif op == "ops":
                for inner, its in _decode_ops(data):
                    self.apply(inner, bytes(its))
            elif op == "set":
                self._set("raw", data, len(data))
        except UNDECODABLE:
            self._set("raw", data, len(data))

    def then(self, later: Change) -> None:
        """Add the change of the stretch that follows; `later` is not modified."""
        self.size += later.size
        if later.whole:
            self._set(later.form, later.copy()._held, later.size)
        elif later.form == "text":
            self._append_text(later._held)
        elif later.form == "list":
            self._append_items(later._held)
        elif later.form == "object":
            self._merge(_copied(later._held))

    def copy(self) -> Change:
        """Return a copy that can change independently."""
        if self.form == "object":
            return Change("object", _copied(self._held), whole=self.whole, size=self.size)
        held = self._held.copy() if self.form in ("text", "list") else self._held
        return Change(self.form, held, whole=self.whole, size=self.size)

    def has_room(self, size: int, bound: int) -> bool:
        """Return whether the change stays within a bound with this many more bytes."""
        if self.size + size <= bound:
            return True
        self._measure()
        # Full an eighth before the bound: otherwise members that are merged again and again near the bound would be
        # measured for every event.
        return self.size + size <= bound - bound // 8

    def forget(self, later: Change) -> None:
        """Drop the members whose values a later change replaces."""
        if self.form == later.form == "object":
            _forget(self._held, later._held)
            self._measure()

    def settled(self) -> Change:
        """Return the whole value that the change makes of an empty one."""
        if self.whole:
            return self
        if self.form == "none":
            return Change("raw", b"null", whole=True, size=4)
        held = _merged({}, self._held) if self.form == "object" else self._held
        return Change(self.form, held, whole=True, size=self.size)

    def value(self) -> bytes:
        """Return the value as JSON; the change must be whole."""
        match self.form:
            case "raw":
                return bytes(self._held)
            case "text":
                return _encode(str(self._held))
            case "list":
                return b"[%b]" % b",".join(self._held)
        return _encode(self._held)

    def wire(self) -> list[WireOp]:
        """Return the change as operations of events."""
        if self.whole:
            return [("set", msgspec.Raw(self.value()))]
        match self.form:
            case "text":
                return [("text", msgspec.Raw(_encode(str(self._held))))]
            case "list":
                return [("list", msgspec.Raw(item)) for item in self._held]
            case "object":
                # RFC 7396 merges objects, so a member that is to be replaced by an object is removed first.
                removing = _removing(self._held)
                patches = [removing, _plain(self._held)] if removing else [_plain(self._held)]
                return [("json-merge", msgspec.Raw(_encode(patch))) for patch in patches]
        return []

    def event(self) -> WireOp:
        """Return the change as one event's operation; `ops` if it needs several."""
        ops = self.wire()
        if len(ops) == 1:
            return ops[0]
        return ("ops", msgspec.Raw(_encode(ops))) if ops else ("none", msgspec.Raw(b"null"))

    def _measure(self) -> None:
        ops = self.wire()
        each = _ITEM if len(ops) > 1 or self.form == "list" else 0
        self.size = sum(len(bytes(data)) + each for _, data in ops)

    def _set(self, form: Form, held: Any, size: int) -> None:
        self.form, self._held, self.whole, self.size = form, held, True, size

    def _begin(self, form: Form, held: Any) -> None:
        """Start another form, because the value so far cannot be extended.

        If the change has no value so far, it is unknown what it extends: it stays a change that is not whole.
        """
        self.whole = self.form != "none"
        self.form, self._held = form, held

    def _append_text(self, text: Text) -> None:
        if self.form == "raw":
            self._open()
        if self.form == "text":
            self._held.extend(text)
        else:
            self._begin("text", text.copy())

    def _append_items(self, items: list[bytes]) -> None:
        if self.form == "raw":
            self._open()
        if self.form == "list":
            self._held += items
        else:
            self._begin("list", list(items))

    def _merge(self, patch: Any) -> None:
        if not isinstance(patch, dict):
            data = bytes(patch) if patch is not None else b"null"
            self._set("raw", data, len(data))
            return
        if self.form == "raw":
            self._open()
        if self.form != "object":
            whole = self.form != "none"
            self._begin("object", _merged({}, patch) if whole else patch)
        elif self.whole:
            _merged(self._held, patch)
        else:
            _composed(self._held, patch)

    def _open(self) -> None:
        """Decode a raw value one level.

        A value that cannot be decoded stays raw, and the next operation replaces it.
        """
        held: bytes = self._held
        try:
            match held[:1]:
                case b'"':
                    self.form, self._held = "text", Text(_decode_text(held))
                case b"[":
                    self.form, self._held = "list", [bytes(item) for item in _decode_items(held)]
                case b"{":
                    self.form, self._held = "object", _tree(held)
        except UNDECODABLE:
            pass


def from_wire(ops: list[WireOp]) -> Change:
    """Return the combined change of operations of events."""
    change = Change()
    for op, data in ops:
        change.apply(op, bytes(data))
    return change


def _patch(data: bytes, depth: int = 0) -> Any:
    """Decode a merge patch.

    Objects become dictionaries and removed members `None`; everything else stays JSON.
    """
    if data[:1] == b"{" and depth < _DEEPEST:
        return {name: _patch(bytes(value), depth + 1) for name, value in _decode_members(data).items()}
    return None if data == b"null" else msgspec.Raw(data)


def _tree(data: bytes, depth: int = 0) -> Any:
    """Decode a value: objects as dictionaries, everything else as JSON."""
    if data[:1] == b"{" and depth < _DEEPEST:
        return {name: _tree(bytes(value), depth + 1) for name, value in _decode_members(data).items()}
    return msgspec.Raw(data)


def _merged(value: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Merge a patch into `value` by RFC 7396, and return it."""
    for name, change in patch.items():
        if change is None:
            value.pop(name, None)
        elif isinstance(change, dict):
            there = value.get(name)
            value[name] = _merged(there if isinstance(there, dict) else {}, change)
        else:
            value[name] = _copied(change.members) if isinstance(change, Whole) else change
    return value


def _composed(patch: dict[str, Any], later: dict[str, Any]) -> None:
    """Change `patch` so that it does what `patch` and then `later` do."""
    for name, change in later.items():
        there = patch.get(name) if name in patch else patch
        if not isinstance(change, dict) or there is patch:
            patch[name] = change
        elif isinstance(there, dict):
            _composed(there, change)
        else:
            patch[name] = Whole(_merged(there.members if isinstance(there, Whole) else {}, change))


def _forget(earlier: dict[str, Any], later: dict[str, Any]) -> None:
    """Drop the members that a later patch replaces; applied in order, both have the same result."""
    for name, change in later.items():
        there = earlier.get(name)
        if not isinstance(change, dict):
            earlier.pop(name, None)
        elif isinstance(there, dict | Whole):
            _forget(there.members if isinstance(there, Whole) else there, change)


def _copied(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _copied(value)
        if isinstance(value, dict)
        else Whole(_copied(value.members))
        if isinstance(value, Whole)
        else value
        for name, value in tree.items()
    }


def _plain(patch: dict[str, Any]) -> dict[str, Any]:
    """Return a patch without `Whole`, for use after `_removing`."""
    return {
        name: _plain(value) if isinstance(value, dict) else value.members if isinstance(value, Whole) else value
        for name, value in patch.items()
    }


def _removing(patch: dict[str, Any]) -> dict[str, Any]:
    """Return the patch that removes the members which `Whole` objects replace."""
    removing: dict[str, Any] = {}
    for name, value in patch.items():
        if isinstance(value, Whole):
            removing[name] = None
        elif isinstance(value, dict) and (inner := _removing(value)):
            removing[name] = inner
    return removing
