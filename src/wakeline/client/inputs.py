"""Inputs and requests: repeat a request until its outcome is known."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from wakeline.client.http import Http
from wakeline.client.values import encode
from wakeline.errors import LimitReachedError, UnavailableError, WakelineError
from wakeline.retry import Backoff

T = TypeVar("T")
JSON: Final = {"Content-Type": "application/json"}
_LONGEST_WAIT: Final = 20.0
"""Seconds that one request waits for the outcome, at most; proxies cut requests that take long."""


def listed(args: object) -> list[Any]:
    """Return the arguments of an input as a list.

    Raises:
        TypeError: It is one argument, not a sequence of them.
    """
    if not isinstance(args, Sequence) or isinstance(args, (str, bytes, bytearray)):  # each letter would be an argument
        raise TypeError(f"expected a list of arguments, such as [{args!r}], got {args!r}")
    return list(args)


async def post(http: Http, path: str, body: bytes, kind: type[T], wait: float = 0.0) -> T:
    """Post a JSON body, and return the answer."""
    return await http.call("POST", path, kind, headers=JSON, body=lambda: body, wait=wait)


async def repeated(
    call: Callable[[], Awaitable[T]],
    retry_seconds: float,
    on_lost: Callable[[WakelineError], None] | None = None,
    *,
    since: float | None = None,
) -> T:
    """Make a call that has no second effect, until it is answered.

    Args:
        call: Makes the call.
        retry_seconds: How long it is repeated.
        on_lost: Called with the reason when it is repeated for the first time.
        since: The monotonic time from which the seconds count; by default that of the first failure.

    Raises:
        UnavailableError: It is not answered for so many seconds.
    """
    backoff, failing_since = Backoff(), since
    while True:
        try:
            return await call()
        except (UnavailableError, LimitReachedError) as error:
            is_first = not backoff.failures
            failing_since = failing_since or time.monotonic()
            least = float(error.details.get("retry_after", 0))
            if time.monotonic() + least >= failing_since + retry_seconds:
                raise
            if is_first and on_lost is not None:
                on_lost(error)
            await backoff.wait(least)


async def until_known(
    http: Http,
    path: str,
    asked: dict[str, Any],
    kind: type[T],
    is_known: Callable[[T], bool],
    *,
    wait_seconds: float | None,
    retry_seconds: float,
    on_lost: Callable[[WakelineError], None] | None = None,
) -> T:
    """Post the same body until its outcome is known; a repetition has no second effect.

    Args:
        http: The gateway.
        path: The path, encoded.
        asked: The body, without `wait`.
        kind: The type of the answer.
        is_known: Returns whether an answer has the outcome.
        wait_seconds: The longest wait for the outcome; None for no limit.
        retry_seconds: How long a gateway that cannot be reached, or has too much to do, is tried again.
        on_lost: Called with the reason when that begins.

    Raises:
        RefusedError: The gateway refused it.
        UnavailableError: The gateway cannot be reached, and may have accepted it.
    """
    ends = None if wait_seconds is None else time.monotonic() + wait_seconds
    while True:
        left = _LONGEST_WAIT if ends is None else max(0.0, min(_LONGEST_WAIT, ends - time.monotonic()))
        body = encode({**asked, "wait": left})
        answer = await repeated(partial(post, http, path, body, kind, left), retry_seconds, on_lost)
        if is_known(answer) or (ends is not None and time.monotonic() >= ends):
            return answer
