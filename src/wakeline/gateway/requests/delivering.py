"""Delivers the outcome of a request to the run that asked, as an input."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from wakeline.errors import LimitReachedError, UnavailableError, WakelineError
from wakeline.gateway.inputs import ANSWER_KEY, Asked, Inputs
from wakeline.gateway.sessions import InputRequest, key_hash
from wakeline.retry import Backoff
from wakeline.streams.requests import ANSWER_SIGNAL

_LOSSES: Final = (UnavailableError, LimitReachedError)
_log = structlog.get_logger(__name__)


async def deliver(inputs: Inputs, request: InputRequest) -> None:
    """Send the outcome of a closed request to its run; return when an intent has it.

    The input's key is made from the request's id, so that a repetition is the same input.
    """
    assert request.deliver is not None
    assert request.resolved is not None
    asked = Asked(
        id=ANSWER_KEY + key_hash(request.id),
        kind=request.deliver.kind,
        name=request.deliver.name,
        args=[msgspec.Raw(msgspec.json.encode(request.resolved))],
        run=request.run,
        device=request.resolved.device,
        wait=0,
    )
    await _send(inputs, request.session, asked, request.resolved.by or "")


async def refuse(inputs: Inputs, session: str, run: str, id: str, error: WakelineError) -> None:
    """Signal to a run that its request was refused, so that it does not wait for an answer.

    Args:
        inputs: Carry the signal.
        session: The session's name.
        run: The run that has asked.
        id: The id of the request.
        error: The reason.
    """
    refused = {"request": id, "status": "refused", "failure": {"message": str(error), "type": error.code}}
    asked = Asked(
        id=f"{ANSWER_KEY}refused-{key_hash(f'{run}/{id}')}",  # no hash of a request's id begins so
        kind="signal",
        name=ANSWER_SIGNAL,
        args=[msgspec.Raw(msgspec.json.encode(refused))],
        run=run,
        wait=0,
    )
    await _send(inputs, session, asked, "")


async def _send(inputs: Inputs, session: str, asked: Asked, by: str) -> None:
    backoff = Backoff()
    while True:
        try:
            await inputs.send(session, asked, by)
        except _LOSSES as error:
            _log.warning("the outcome of a request cannot be sent now", session=session, error=error.message)
        except WakelineError as error:
            # The run has ended, or there is none: the outcome is in the log for others.
            _log.info("the outcome of a request has no receiver", session=session, error=error.message)
            return
        else:
            return
        await backoff.wait()
