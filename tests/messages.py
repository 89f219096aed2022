"""What the operations of a message that grows do to its value, as PROTOCOL.md §2 and §4 say it, in as many words."""

from __future__ import annotations

from typing import Any


def patched(value: Any, patch: Any) -> Any:
    """RFC 7396, as it is written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = patched(result.get(name), change)
    return result


def after(value: Any, op: str, data: Any) -> Any:
    if op == "text":
        return value + data if isinstance(value, str) else data
    if op == "list":
        return [*value, data] if isinstance(value, list) else [data]
    if op == "json-merge":
        return patched(value, data)
    if op == "ops":
        for inner, its in data:
            value = after(value, inner, its)
        return value
    return data if op == "set" else value
