"""The stored outboxes: one record for each session.

The cursor and what was decided change together. So a gateway that is killed has either decided a stretch of the log, with
its messages stored, or not decided it. A box that is full holds its cursor back, and the log keeps the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import structlog

from wakeline.errors import RecordConflictError
from wakeline.gateway.log import MAX_RECORD_BYTES, Engine, Record
from wakeline.gateway.notifications.values import Box, Message, State

_PREFIX: Final = "notifications/session/"
_SINCE: Final = "notifications/rules"
_MOST_FINISHED: Final = 50
_MOST_BYTES: Final = 200 * 1024
_log = structlog.get_logger(__name__)

Change: TypeAlias = Callable[[Box], Box]


class Stored(msgspec.Struct, frozen=True):
    """A box as it is stored; revision 0 if it is not."""

    box: Box
    revision: int


_decoder = msgspec.json.Decoder(Box)
_since = msgspec.json.Decoder(dict[str, float])


class Outbox:
    """Reads and writes the boxes of sessions.

    Args:
        engine: Stores them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def load(self, session: str, epoch: str, *, first_offset: int = 0) -> Stored:
        """Return a session's box; without one, an empty one whose cursor is at the oldest event."""
        return _stored(await self._engine.get_record(_PREFIX + session), epoch, first_offset)

    async def load_all(self, epochs: Mapping[str, str]) -> dict[str, Box]:
        """Return the stored boxes of sessions, given with their epochs.

        A box that cannot be decoded, such as one of a later version, is left out: it must not hinder the others.
        """
        found: dict[str, Box] = {}
        for key, record in (await self._engine.get_records([_PREFIX + session for session in epochs])).items():
            session = key.removeprefix(_PREFIX)
            try:
                box = _decoder.decode(record.value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                _log.warning("an outbox cannot be read; it is left as it is", session=session, error=str(error))
                continue
            if box.epoch == epochs[session]:
                found[session] = box
        return found

    async def save(self, session: str, box: Box, *, revision: int) -> Stored:
        """Write a box if it is still at `revision`.

        Raises:
            RecordConflictError: It has another revision.
            UnavailableError: It could not be stored, or the outcome is unknown.
        """
        kept = _evicted(session, box)
        record = await self._engine.put_record(_PREFIX + session, msgspec.json.encode(kept), revision=revision)
        return Stored(kept, record.revision)

    async def change(self, session: str, epoch: str, change: Change) -> Box:
        """Change a box, again if another process wrote first; return the changed box.

        Raises:
            UnavailableError: It could not be stored, or the outcome is unknown.
        """
        while True:
            stored = await self.load(session, epoch)
            changed = change(stored.box)
            if changed == stored.box:
                return changed
            try:
                return (await self.save(session, changed, revision=stored.revision)).box
            except RecordConflictError:
                continue

    async def forget(self, session: str) -> None:
        """Erase the box of the session's earlier epochs. Call it after the session was deleted."""
        while True:
            record = await self._engine.get_record(_PREFIX + session)
            state = await self._engine.state(session)
            if record is None or (state is not None and _decoder.decode(record.value).epoch == state.epoch):
                return
            try:
                await self._engine.delete_record(record.key, revision=record.revision, erase=True)
            except RecordConflictError:
                continue
            return

    async def since(self, rules: Sequence[str], now: float) -> dict[str, float]:
        """Return when the store first had each rule; note new rules, and forget removed ones."""
        while True:
            record = await self._engine.get_record(_SINCE)
            known = _since.decode(record.value) if record else {}
            wanted = {rule: known.get(rule, now) for rule in rules}
            if wanted == known:
                return wanted
            try:
                await self._engine.put_record(
                    _SINCE, msgspec.json.encode(wanted), revision=record.revision if record else 0
                )
            except RecordConflictError:
                continue
            return wanted


def replaced(box: Box, changed: Message) -> Box:
    """Return the box with one of its messages changed; unchanged if the message is gone."""
    messages = tuple(changed if message.id == changed.id else message for message in box.messages)
    return msgspec.structs.replace(box, messages=messages)


def _stored(record: Record | None, epoch: str, first_offset: int) -> Stored:
    empty = Box(epoch, first_offset)
    if record is None:
        return Stored(empty, 0)
    box = _decoder.decode(record.value)
    return Stored(box if box.epoch == epoch else empty, record.revision)


def _evicted(session: str, box: Box) -> Box:
    """Return the box without its oldest finished messages, if there are too many.

    A box that is still full keeps only the last attempt of each message; none if those are too long for its record. Without
    them it always fits.
    """
    size = len(msgspec.json.encode(box))
    finished = [message for message in box.messages if message.state != "pending"]
    dropped: set[str] = set()
    ranks: dict[State, int] = {"cancelled": 0, "delivered": 0, "dead": 1, "pending": 2}
    finished.sort(key=lambda message: ranks[message.state])  # stable: within a rank, oldest first
    for message in finished:
        if len(finished) - len(dropped) <= _MOST_FINISHED and size <= _MOST_BYTES:
            break
        dropped.add(message.id)
        size -= len(msgspec.json.encode(message))
        if message.state == "dead":
            _log.warning("a dead notification was dropped for newer ones", session=session, id=message.id)
    kept = msgspec.structs.replace(
        box, messages=tuple(message for message in box.messages if message.id not in dropped)
    )
    if size > _MOST_BYTES:  # the attempts of pending messages have filled it
        kept = _with_attempts(kept, 1)
        if len(msgspec.json.encode(kept)) > MAX_RECORD_BYTES:
            kept = _with_attempts(kept, 0)
    return kept


def _with_attempts(box: Box, most: int) -> Box:
    """Return the box with at most so many attempts of each message, the latest."""
    messages = tuple(
        msgspec.structs.replace(message, attempts=message.attempts[-most:] if most else ()) for message in box.messages
    )
    return msgspec.structs.replace(box, messages=messages)
