"""Reads `Accept` and `Accept-Encoding`, ignoring case and heeding the weight of each item."""

from __future__ import annotations

from collections.abc import Mapping


def quality(accepted: str, name: str) -> float | None:
    """Return the weight of `name`, 0 to 1; None if the list does not name it."""
    for item in accepted.lower().split(","):
        value, *parameters = (part.strip() for part in item.split(";"))
        if value == name:
            return _q(parameters)
    return None


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return float(value)
            except ValueError:
                break
    return 1.0


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether an answer may be compressed with gzip."""
    accepted = headers.get("Accept-Encoding", "")
    wanted = quality(accepted, "gzip")
    return bool(quality(accepted, "*") if wanted is None else wanted)
