"""The inputs that carry outcomes to runs: each has a key of its own."""

from __future__ import annotations

from typing import cast

from wakeline.errors import RequestConflictError
from wakeline.gateway.inputs import Asked, Inputs
from wakeline.gateway.requests.delivering import deliver, refuse
from wakeline.gateway.sessions import Delivery, InputRequest, Requested, Resolved


class Sent:
    """Stands for the inputs, and keeps their keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def send(self, session: str, asked: Asked, by: str) -> None:
        self.keys.append(asked.id)


async def test_no_request_has_the_key_of_a_refusal() -> None:
    sent = Sent()
    id = "refused/run-1/pay-1"
    request = InputRequest(
        session="s",
        epoch="e",
        asked="a",
        requested=Requested(id=id, reason="approval"),
        deliver=Delivery(),
        resolved=Resolved(request=id, status="cancelled"),
    )
    await deliver(cast(Inputs, sent), request)
    await refuse(cast(Inputs, sent), "s", "run-1", "pay-1", RequestConflictError("another one"))
    assert len(set(sent.keys)) == 2
