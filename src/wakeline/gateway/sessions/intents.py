"""The records of a session's inputs: an intent before anything is sent, then the outcome.

An input that is under way has a record under `inputs.open/`, with all that another gateway needs to carry it on. Its outcome is
a record of its own under `inputs/`, which can be created only once: that decides which outcome an input has. The open record is
removed last, when the outcome is in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from wakeline.errors import RecordConflictError
from wakeline.gateway.sessions.remembered import LifeRecords, remember, remove
from wakeline.gateway.sessions.slices import each_decoded, name_of
from wakeline.streams.inputs import temporal_id

Kind: TypeAlias = Literal["signal", "update", "cancel", "terminate", "start"]

_OPEN: Final = "inputs.open/"
_SETTLED: Final = "inputs/"


class Starting(msgspec.Struct, frozen=True, kw_only=True):
    """How an input starts its workflow; any gateway can do so, whatever rules it has.

    Attributes:
        workflow_type: The workflow's type.
        task_queue: Its task queue.
        args: Its arguments, a JSON array.
        id_reuse: As in the rule.
        id_conflict: As in the rule.
    """

    workflow_type: str
    task_queue: str
    args: msgspec.Raw
    id_reuse: str
    id_conflict: str


class Intent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An input that was accepted, and whose outcome may not be in the log yet.

    Attributes:
        session: The session's name.
        epoch: The session's life.
        id: The key that the client made.
        digest: Of the whole request and its user: another one with the same key is refused.
        kind: What is sent.
        name: The signal's or update's name, or that of the rule of a start; empty for the other kinds.
        args: The arguments, a JSON array.
        run: The name of the run that it is for; empty while it has none.
        run_id: The Temporal run that it is sent to now; it changes only when an earlier one certainly did not get it.
        starting: How it starts the workflow if no run of it is open; None if it does not.
        over: Whether `run_id` (if it is not empty) has ended without the input, and the workflow is started after that run.
        workflow_id: The run's Workflow Id.
        namespace: The run's namespace; empty for the gateway's main one.
        by: The user who sent it; empty if no token is required.
        device: The device that it was sent from.
        expect: The offset of the last event that the device had seen; None if that does not matter.
        shown: What `$input.accepted` shows of it, a JSON object; unset for nothing.
        accepted_at: When it was accepted, in Unix time.
    """

    session: str
    epoch: str
    id: str
    digest: str
    kind: Kind
    name: str = ""
    args: msgspec.Raw
    run: str
    run_id: str
    starting: Starting | None = None
    over: bool = False
    workflow_id: str
    namespace: str = ""
    by: str = ""
    device: str | None = None
    expect: int | None = None
    shown: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    accepted_at: float = 0.0

    @property
    def life(self) -> str:
        """A text that an earlier input with this key, whose outcome is forgotten, has not."""
        return f"{int(self.accepted_at * 1e6):x}"

    @property
    def temporal_id(self) -> str:
        """The request id or update id under which it is sent, each time."""
        return temporal_id(self.id, self.life)


class Settled(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The outcome of an input.

    Attributes:
        epoch: The life of its session.
        digest: That of its intent.
        status: Whether the run completed or rejected it.
        data: The data of its `$input.completed` or `$input.rejected`, a JSON object.
        by: The user who sent it; empty if no token is required.
        closed_at: When it was written, in ISO 8601; from then on it is remembered for a time.
        stale: The offset of the event that its device had not seen, if it was rejected for that.
        life: That of its intent.
    """

    epoch: str
    digest: str
    status: Literal["completed", "rejected"]
    data: msgspec.Raw
    by: str = ""
    closed_at: str = ""
    stale: int | None = None
    life: str = ""


class Unfinished(NamedTuple):
    """An intent whose record is still there, and the revision of the record."""

    intent: Intent
    revision: int


_intent = msgspec.json.Decoder(Intent)
_settled = msgspec.json.Decoder(Settled)


class Intents(LifeRecords):
    """Reads and writes the records of inputs under compare-and-set.

    Args:
        records: Stores them.
    """

    prefixes = (_OPEN, _SETTLED)

    async def find(self, session: str, key: str) -> Intent | Settled | None:
        """Return an input's outcome; its intent if it has none yet; None if there is no such input."""
        name = name_of(session, key)
        found = await self._records.get_records([_OPEN + name, _SETTLED + name])
        if (settled := found.get(_SETTLED + name)) is not None:
            return _settled.decode(settled.value)
        intent = found.get(_OPEN + name)
        return None if intent is None else _intent.decode(intent.value)

    async def create(self, intent: Intent) -> Intent | Settled:
        """Write a new intent, unless there is an input of its key; return what there is then.

        Raises:
            RecordTooLargeError: The arguments are too large.
        """
        with suppress(RecordConflictError):
            await self._records.put_record(_open(intent), msgspec.json.encode(intent), revision=0)
        found = await self.find(intent.session, intent.id)
        if isinstance(found, Settled):
            # Another gateway settled it and removed its open record, which was then created again.
            await self.finish(intent, found)
        return found or intent

    async def aim(self, intent: Intent, run_id: str, *, run: str | None = None, over: bool = False) -> Intent | None:
        """Note the Temporal run that an input is sent to, or after which its workflow starts.

        Args:
            intent: The input.
            run_id: The Temporal run.
            run: The name of the run that it belongs to; None if that does not change.
            over: Whether it has ended, and the workflow is started after it.

        Returns:
            The intent as it is now, which another gateway may have changed; None if it is finished.
        """
        record = await self._records.get_record(_open(intent))
        if record is None:
            return None
        known = _intent.decode(record.value)
        if (known.run_id, known.over) != (intent.run_id, intent.over):
            return known
        aimed = msgspec.structs.replace(known, run_id=run_id, run=known.run if run is None else run, over=over)
        try:
            await self._records.put_record(record.key, msgspec.json.encode(aimed), revision=record.revision)
        except RecordConflictError:
            return await self.aim(intent, run_id, run=run, over=over)
        return aimed

    async def settle(self, intent: Intent, outcome: Settled) -> Settled:
        """Write an input's outcome, unless it has one; return the one that it has then."""
        key = _SETTLED + name_of(intent.session, intent.id)
        with suppress(RecordConflictError):
            await self._records.put_record(key, msgspec.json.encode(outcome), revision=0)
            return outcome
        record = await self._records.get_record(key)
        return outcome if record is None else _settled.decode(record.value)

    async def finish(self, intent: Intent, outcome: Settled) -> None:
        """Remove an intent whose outcome is in the log; the outcome is remembered for a time."""
        await remember(self._records, _SETTLED + name_of(intent.session, intent.id), outcome.closed_at)
        await remove(self._records, _open(intent))

    async def unfinished(self) -> AsyncIterator[Unfinished]:
        """Yield the intents of all sessions that are still there, read in slices."""
        async for record, intent in each_decoded(self._records, _OPEN, _intent):
            yield Unfinished(intent, record.revision)


def _open(intent: Intent) -> str:
    return _OPEN + name_of(intent.session, intent.id)
