"""Parameters of requests, read strictly: an error states the expected values.

`route` declares the query parameters of a route. `check_query` refuses all others, so that a misspelt parameter is not
ignored.
"""

from __future__ import annotations

import math
from typing import Final

from aiohttp import web

from wakeline.errors import RequestInvalidError
from wakeline.events import CONTROL, check_session_name
from wakeline.gateway.access import GRANT, Action, Grant
from wakeline.gateway.sessions import STATUSES

_MAX_WAIT: Final = 60.0
_MAX_USER_BYTES: Final = 256  # the limit of a token's `sub`
_NONE: Final[dict[str, bool]] = {}


def taken(handler: object) -> dict[str, bool]:
    """Return the query parameters of a route's handler, and whether each may be repeated."""
    found: dict[str, bool] = getattr(handler, "parameters", _NONE)
    return found


def check_query(request: web.Request) -> None:
    """Refuse a request with a parameter that its route does not declare.

    Raises:
        RequestInvalidError: A parameter is unknown, or is repeated and must not be.
    """
    if request.query_string and request.match_info.http_exception is None:
        refuse_others(request, taken(request.match_info.handler))


def refuse_others(request: web.Request, parameters: dict[str, bool]) -> None:
    """Refuse a request with other query parameters than the declared ones.

    Raises:
        RequestInvalidError: A parameter is unknown, is repeated and must not be, or has control characters.
    """
    if "*" in parameters:
        return
    for name, text in request.query.items():
        if name not in parameters and name != "ticket":
            known = ", ".join(parameters)
            expected = (
                f"one of the query parameters {known}" if known else "no query parameter, because this route has none"
            )
            raise RequestInvalidError(
                f"expected {expected}; got {name[:40]!r}", hint="Correct the parameter's name, or leave it out."
            )
        if not parameters.get(name, False) and len(request.query.getall(name)) > 1:
            raise RequestInvalidError(f"expected {name} once, got it {len(request.query.getall(name))} times")
        if CONTROL.search(text):  # no value has them, and not every engine could compare them
            raise RequestInvalidError(
                f"expected {name} without control characters, got {text[:64]!r}",
                hint="Send the parameter as an answer of the gateway had it, or leave it out.",
            )


def last_event_id(request: web.Request) -> str | None:
    """Return the last cursor of an `EventSource`: its header, or the parameter of polyfills."""
    return request.headers.get("Last-Event-ID") or request.query.get("lastEventId") or None


def session_of(request: web.Request, action: Action) -> tuple[str, Grant]:
    """Return the session that a path names, and the grant, which allows the action there.

    Raises:
        SessionNameInvalidError: It is not a session's name.
        NotAllowedError: The grant does not allow the action.
        SessionNotFoundError: The grant does not reach the session.
    """
    name, grant = check_session_name(request.match_info["session"]), request[GRANT]
    grant.check(action, name)
    return name, grant


def offset_of(request: web.Request) -> int:
    """Return the offset that a path names."""
    text = request.match_info["offset"]
    if not (text.isascii() and text.isdigit() and len(text) < 17 and int(text) < 1 << 53):
        raise RequestInvalidError(f"expected an offset from 0 to {(1 << 53) - 1}, got {text[:40]!r}")
    return int(text)


def integer(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """Return a parameter that is an integer from `least` to `most`."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise RequestInvalidError(f"expected {name} to be an integer from {least} to {most}, got {text[:40]!r}")
    return int(text)


def seconds(request: web.Request, name: str) -> float:
    """Return a parameter that is a time to wait; 0 if it is missing."""
    text = request.query.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_WAIT:
        raise RequestInvalidError(f"expected {name} to be 0 to {_MAX_WAIT:.0f} seconds, got {text[:40]!r}")
    return value


def flag(request: web.Request, name: str) -> bool:
    """Return a parameter that is `true` or `false`; False if it is missing."""
    return _is_first(request, name, "true", "false", default="false")


def until_settled(request: web.Request) -> bool:
    """Return whether the request has `until=settled`."""
    return _is_first(request, "until", "settled", "never", default="never")


def until_never(request: web.Request) -> bool:
    """Return whether the request has `until=never`, on a route that ends by default."""
    return not _is_first(request, "until", "settled", "never", default="settled")


def compact_view(request: web.Request) -> bool:
    """Return whether the request has `view=compact`."""
    return not _is_first(request, "view", "raw", "compact", default="raw")


def newest_first(request: web.Request) -> bool:
    """Return whether the request has `order=newest`, the only order that knows `contains`."""
    newest = _is_first(request, "order", "newest", "name", default="name")
    if "contains" in request.query and not newest:
        raise RequestInvalidError("expected order=newest with contains, got the order of names")
    return newest


def session_status(request: web.Request) -> str | None:
    """Return the status that listed sessions must have; None for any."""
    status = request.query.get("status")
    if status is not None and status not in STATUSES:
        raise RequestInvalidError(f"expected status to be one of {', '.join(STATUSES)}, got {status[:40]!r}")
    return status


def _is_first(request: web.Request, name: str, first: str, second: str, *, default: str) -> bool:
    text = request.query.get(name, default)
    if text not in (first, second):
        raise RequestInvalidError(f"expected {name}={first} or {name}={second}, got {text[:40]!r}")
    return text == first


def device_id(request: web.Request) -> str | None:
    """Return the id of the device that reads; None if the request names none."""
    text = request.query.get("device")
    return None if text is None else check_device(text)


def check_device(text: str) -> str:
    """Return `text` if it is a valid device id."""
    if not (1 <= len(text) <= 128 and text.isascii() and text.isprintable() and " " not in text):
        raise RequestInvalidError(f"expected a device id of 1 to 128 visible ASCII characters, got {text[:40]!r}")
    return text


def user_parameter(request: web.Request) -> str | None:
    """Return the user whose devices the request names; None if it names none."""
    user = request.query.get("user")
    if user is not None and len(user.encode(errors="replace")) > _MAX_USER_BYTES:
        raise RequestInvalidError(f"expected user to have at most {_MAX_USER_BYTES} bytes, got {user[:40]!r}")
    return user
