"""Delivers the outcome of a request to the run that asked, as an input."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from wakeline.errors import LimitReachedError, UnavailableError, WakelineError
from wakeline.gateway.inputs import ANSWER_KEY, Asked, Inputs
from wakeline.gateway.sessions import InputRequest, key_hash
from wakeline.retry import Backoff

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
    backoff = Backoff()
    while True:
        try:
            await inputs.send(request.session, asked, request.resolved.by or "")
        except _LOSSES as error:
            _log.warning("the outcome of a request cannot be sent now", session=request.session, error=error.message)
        except WakelineError as error:
            # The run has ended, or there is none: the outcome is in the log for others.
            _log.info("the outcome of a request has no receiver", session=request.session, error=error.message)
            return
        else:
            return
        await backoff.wait()
