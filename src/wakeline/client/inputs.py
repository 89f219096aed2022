"""Inputs: send a signal or an update, and repeat the request until its outcome is known."""

from __future__ import annotations

import time
from typing import Any, Final

from wakeline.client.http import Http, session_path
from wakeline.client.structs import InputOutcome
from wakeline.client.values import encode
from wakeline.errors import LimitReachedError, UnavailableError
from wakeline.retry import Backoff

_JSON: Final = {"Content-Type": "application/json"}
_LONGEST_WAIT: Final = 20.0
"""Seconds that one request waits for the outcome, at most; proxies cut requests that take long."""


async def send(
    http: Http, session: str, asked: dict[str, Any], *, wait_seconds: float | None, retry_seconds: float
) -> InputOutcome:
    """Send an input until its outcome is known; a repetition is the same input.

    Args:
        http: The gateway.
        session: The session's name.
        asked: The input, without `wait`.
        wait_seconds: The longest wait for the outcome; None for no limit.
        retry_seconds: How long a gateway that cannot be reached, or has too much to do, is tried again.

    Raises:
        RefusedError: The gateway refused the input.
        UnavailableError: The gateway cannot be reached, and may have accepted the input.
    """
    path, backoff = session_path(session, "inputs"), Backoff()
    ends = None if wait_seconds is None else time.monotonic() + wait_seconds
    failing_since: float | None = None
    while True:
        left = _LONGEST_WAIT if ends is None else max(0.0, min(_LONGEST_WAIT, ends - time.monotonic()))
        body = encode({**asked, "wait": left})
        try:
            outcome = await http.call("POST", path, InputOutcome, headers=_JSON, body=lambda body=body: body, wait=left)
        except (UnavailableError, LimitReachedError) as error:
            failing_since = failing_since or time.monotonic()
            least = float(error.details.get("retry_after", 0))
            if time.monotonic() + least >= failing_since + retry_seconds:
                raise
            await backoff.wait(least)
            continue
        if outcome.status != "accepted" or (ends is not None and time.monotonic() >= ends):
            return outcome
        failing_since = None
        backoff.reset()
