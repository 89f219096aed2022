"""Commands print JSON as the gateway's own answers have it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from wakeline.cli.as_json import as_json


class _Asked(msgspec.Struct, omit_defaults=True):
    id: str
    expires_at: datetime
    answers: list[dict[str, object]]
    claim: str | None = None


def test_a_time_has_milliseconds() -> None:
    moment = datetime(2026, 12, 1, 2, 15, 21, 317000, UTC)
    line = as_json(_Asked("pay-1", moment, [{"text": "2026-12-01T02:15:21.317000Z", "at": moment}]))
    assert line == (
        '{"id":"pay-1","expires_at":"2026-12-01T02:15:21.317Z",'
        '"answers":[{"text":"2026-12-01T02:15:21.317000Z","at":"2026-12-01T02:15:21.317Z"}]}'
    )
