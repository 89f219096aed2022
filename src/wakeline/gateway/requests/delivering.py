"""Delivers the outcome of a request to the run that asked, as an input."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from wakeline.background import begin, cancel_all
from wakeline.errors import LimitReachedError, UnavailableError, WakelineError
from wakeline.gateway.inputs import ANSWER_KEY, Asked, Inputs
from wakeline.gateway.runtime import log_failure
from wakeline.gateway.sessions import InputRequest, InputRequests, key_hash
from wakeline.retry import Backoff
from wakeline.streams.requests import ANSWER_SIGNAL

_log = structlog.get_logger(__name__)


class Deliveries:
    """The outcomes that are on their way to the runs that asked.

    A request's open record stays until its outcome has arrived: it counts as open for the session's limits, another gateway
    delivers it if this one ends before, and no other request can have its id.

    Args:
        records: The records of requests.

    Attributes:
        inputs: Carry outcomes; None without Temporal.
    """

    def __init__(self, records: InputRequests) -> None:
        self._records = records
        self._under_way: set[tuple[str, str, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.inputs: Inputs | None = None

    async def stop(self) -> None:
        """Stop; the next gateway continues."""
        await cancel_all(*self._tasks)

    async def finish(self, request: InputRequest) -> None:
        """Remove the open record of a closed request, once its run has received the outcome."""
        key = (request.session, request.epoch, request.id)
        if request.deliver is None:
            await self._records.finish(request)
        elif self.inputs is not None and key not in self._under_way:
            self._under_way.add(key)
            begin(self._delivered(self.inputs, request), self._tasks).add_done_callback(
                lambda _: self._under_way.discard(key)
            )

    async def refuse(self, session: str, run: str, id: str, error: WakelineError) -> None:
        """Accept the signal with a refusal to the run that asked; it then survives this gateway.

        Args:
            session: The session's name.
            run: The run that has asked.
            id: The id of the request.
            error: The reason.

        Raises:
            UnavailableError: The signal cannot be accepted now.
        """
        if self.inputs is None:
            return
        asked = refusal(run, id, error)
        try:
            await self.inputs.accept(session, asked, "")
        except UnavailableError:
            raise
        except LimitReachedError:
            # The run has had as many signals as Temporal accepts. Its follower must not wait for the next run.
            begin(_send(self.inputs, session, asked, ""), self._tasks)
        except WakelineError as lost:
            _log.info("the refusal of a request has no receiver", session=session, error=lost.message)

    async def _delivered(self, inputs: Inputs, request: InputRequest) -> None:
        await deliver(inputs, request)
        backoff = Backoff()
        while True:
            try:
                # Not left to the next start: the input may be forgotten by then, and the outcome would be sent again.
                await self._records.finish(request)
            except UnavailableError as error:
                log_failure(_log, "a request cannot be finished now", error, session=request.session)
                await backoff.wait()
            else:
                return


async def deliver(inputs: Inputs, request: InputRequest) -> None:
    """Send a closed request's outcome to its run; return when that has it, or cannot get it.

    The input's key is made from the request's id and the time of its closing, so that a repetition is the same input, and
    the outcome of a later request with that id is another one.
    """
    assert request.deliver is not None
    assert request.resolved is not None
    asked = Asked(
        id=ANSWER_KEY + key_hash(f"{request.closed_at} {request.id}"),
        kind=request.deliver.kind,
        name=request.deliver.name,
        args=[msgspec.Raw(msgspec.json.encode(request.resolved))],
        run=request.run,
        device=request.resolved.device,
        wait=0,
    )
    await _send(inputs, request.session, asked, request.resolved.by or "", request.epoch)


def refusal(run: str, id: str, error: WakelineError) -> Asked:
    """Return the signal with a refusal, so that the run does not wait for an answer.

    Its key is made from the run and the request's id, so that a repetition is the same input.

    Args:
        run: The run that has asked.
        id: The id of the request.
        error: The reason.
    """
    refused = {"request": id, "status": "refused", "failure": {"message": str(error), "type": error.code}}
    return Asked(
        id=f"{ANSWER_KEY}refused-{key_hash(f'{run}/{id}')}",  # no hash of a request's id begins so
        kind="signal",
        name=ANSWER_SIGNAL,
        args=[msgspec.Raw(msgspec.json.encode(refused))],
        run=run,
        wait=0,
    )


async def _send(inputs: Inputs, session: str, asked: Asked, by: str, epoch: str | None = None) -> None:
    backoff = Backoff()
    is_logged = False
    while True:
        least = 0.0
        try:
            await inputs.deliver(session, asked, by, epoch=epoch)
        except UnavailableError as error:
            log_failure(_log, "the outcome of a request cannot be sent now", error, session=session)
        except LimitReachedError as error:
            least = error.retry_after
            if not is_logged:  # it may last until the workflow continues as new
                _log.info("the outcome of a request waits for its run", session=session, error=error.message)
            is_logged = True
        except WakelineError as error:
            # The run has ended, or there is none: the outcome is in the log for others.
            _log.info("the outcome of a request has no receiver", session=session, error=error.message)
            return
        else:
            return
        await backoff.wait(least)
