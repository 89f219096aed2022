"""The health of channels: one that fails for days is disabled.

It is enabled when an attempt by hand succeeds, or when its receiver changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from wakeline.errors import RecordConflictError
from wakeline.gateway.log import Records
from wakeline.gateway.notifications.operations import Operations

DISABLED_AFTER: Final = 5 * 86_400.0
"""Seconds of failures without an accepted notification after which a channel is disabled."""

_PREFIX: Final = "notifications/channel/"
_log = structlog.get_logger(__name__)


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """A channel's condition, as it is stored.

    Attributes:
        identity: The receiver that it is about.
        failing: Unix time of the first failure since the last accepted notification; None if there was none.
        disabled: Whether nothing is sent any more.
    """

    identity: str
    failing: float | None = None
    disabled: bool = False


def after_success(condition: Condition) -> Condition:
    """Return the condition after a notification was accepted."""
    return Condition(condition.identity)


def after_failure(condition: Condition, now: float, *, gone: bool = False) -> Condition:
    """Return the condition after a failed attempt.

    Args:
        condition: The condition before.
        now: Unix time.
        gone: Whether the receiver answered that it wants nothing any more.
    """
    failing = now if condition.failing is None else condition.failing
    disabled = condition.disabled or gone or now - failing >= DISABLED_AFTER
    return Condition(condition.identity, failing, disabled)


_decoder = msgspec.json.Decoder(Condition)


class Health:
    """The conditions of all channels, shared as the store is.

    Args:
        records: Stores the conditions.
        identities: The receiver of each channel that has one; the condition of others is not kept.
        observed: Called with a channel and whether it is disabled.
        operations: Reports that a channel was disabled or enabled.
    """

    def __init__(
        self,
        records: Records,
        identities: Mapping[str, str],
        observed: Callable[[str, bool], object],
        operations: Operations,
    ) -> None:
        self._records = records
        self._operations = operations
        self._observed = observed
        self._conditions = {channel: Condition(identity) for channel, identity in identities.items()}

    async def load(self) -> None:
        """Read all conditions, which other gateways write, too.

        A channel that was disabled and has another receiver now is enabled.
        """
        for channel in self._conditions:
            await self._enable_changed(channel)
            await self._read(channel)

    async def _enable_changed(self, channel: str) -> None:
        """Store and report that a disabled channel is enabled if its receiver was changed."""
        record = await self._records.get_record(_PREFIX + channel)
        if record is None:
            return
        known, fresh = _decoder.decode(record.value), Condition(self._conditions[channel].identity)
        if known.identity == fresh.identity or not known.disabled:
            return
        await self._operations.channel_changed(channel, known.failing or 0.0, disabled=False)
        with suppress(RecordConflictError):  # another gateway has done it
            await self._records.put_record(_PREFIX + channel, msgspec.json.encode(fresh), revision=record.revision)
        _log.warning("a channel is enabled: its receiver was changed", channel=channel)

    async def is_disabled(self, channel: str) -> bool:
        """Return whether a channel is disabled, by whichever gateway."""
        if channel not in self._conditions:
            return False
        await self._read(channel)
        return self._conditions[channel].disabled

    async def succeeded(self, channel: str) -> None:
        """Note that a channel's receiver has accepted a notification."""
        if channel in self._conditions:  # another gateway may have noted a failure
            await self._change(channel, after_success)

    async def failed(self, channel: str, now: float, reason: str = "", *, gone: bool = False) -> None:
        """Note a failed attempt, with its outcome for people."""
        if channel in self._conditions:
            await self._change(channel, lambda condition: after_failure(condition, now, gone=gone), reason)

    async def _change(self, channel: str, change: Callable[[Condition], Condition], reason: str = "") -> None:
        while True:
            revision = await self._read(channel)
            condition = self._conditions[channel]
            changed = change(condition)
            if changed == condition:
                return
            if changed.disabled != condition.disabled:
                # Before the change is stored: after a crash in between it is made, and reported, again.
                failing = changed.failing or condition.failing or 0.0
                await self._operations.channel_changed(channel, failing, disabled=changed.disabled, reason=reason)
            try:
                await self._records.put_record(_PREFIX + channel, msgspec.json.encode(changed), revision=revision)
            except RecordConflictError:
                continue
            if changed.disabled != condition.disabled:
                _log.warning("a channel was disabled" if changed.disabled else "a channel is enabled", channel=channel)
            self._set(channel, changed)
            return

    async def _read(self, channel: str) -> int:
        record = await self._records.get_record(_PREFIX + channel)
        if record is None:
            return 0
        condition = _decoder.decode(record.value)
        identity = self._conditions[channel].identity
        self._set(channel, condition if condition.identity == identity else Condition(identity))
        return record.revision

    def _set(self, channel: str, condition: Condition) -> None:
        self._conditions[channel] = condition
        self._observed(channel, condition.disabled)
