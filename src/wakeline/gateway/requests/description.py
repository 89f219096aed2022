"""How the routes show a request."""

from __future__ import annotations

from typing import Any

import msgspec

from wakeline.gateway.sessions import InputRequest


def described(request: InputRequest) -> dict[str, Any]:
    """Return a request as the routes answer with it."""
    shown: dict[str, Any] = {**msgspec.to_builtins(request.requested), "status": request.status}
    if request.answers:
        shown["answers"] = [msgspec.structs.asdict(each) for each in request.answers]
    if request.claim is not None and request.resolved is None:
        shown["claim"] = request.claim
    if request.resolved is not None:
        shown["outcome"] = request.resolved
    return shown
