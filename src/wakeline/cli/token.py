"""`wakeline token`: a token for development."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from joserfc import jwt

from wakeline.errors import RequestInvalidError, SettingsInvalidError
from wakeline.events import check_beginning, check_session_name, check_topic
from wakeline.gateway.access import Action, shared_key
from wakeline.gateway.settings import Settings, load

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])")


def token(
    *,
    user: str,
    session: Annotated[tuple[str, ...], Parameter(negative=())],
    allow: Annotated[tuple[Action, ...], Parameter(negative=(), show_default=False)] = ("read", "ack"),
    topic: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    publisher: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    input_name: Annotated[tuple[str, ...], Parameter(name="--input", negative=(), show_default=False)] = (),
    role: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    cache: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    expires: str = "1h",
    config: Path | None = None,
) -> None:
    """Print a token for development, signed with the gateway's token_secret.

    The gateway and this command must have the same secret, 32 bytes or more:

        export WAKELINE_TOKEN_SECRET=$(openssl rand -hex 32)
        wakeline serve

    For example:

        wakeline token --user alice --session 'order-*'
        wakeline token --user alice --session order-1 --session chat-7 --allow read --topic status --topic '$run.*'
        wakeline token --user worker --session '*' --allow publish --expires 30d
        curl -H "Authorization: Bearer $(wakeline token --user me --session '*')" localhost:7777/v1/sessions

    In production your own service signs tokens, with any JWT library: HS256 and this secret, or a private key whose public
    half is in token_jwks. Its claims: sub (the user), exp (the expiry),
    wakeline {"sessions": ["order-*"], "allow": ["read", "ack"], "topics": ["status"]}; without topics, all.

    Args:
        user: The user: the token's sub.
        session: A session that it reaches, or a prefix that ends in *; repeatable.
        allow: An action that it allows: read, ack, publish, input, manage, follow or restore; repeatable (default: read and
            ack).
        topic: A topic it may read and publish, or a prefix that ends in *; repeatable (default: all topics).
        publisher: A publisher it may use whichever token has opened it, or a prefix that ends in *; repeatable.
        input_name: An input that it may send with --allow input: the name of a signal or an update, $answer.REASON, or a prefix
            that ends in *; repeatable.
        role: A role of the user, for requests for input whose audience is a role; repeatable.
        cache: Let caches keep full pages.
        expires: How long it is valid: 30s, 15m, 1h, 30d.
        config: A TOML file with settings (default: WAKELINE_CONFIG, if set).
    """
    settings = load(file=config)
    scope: dict[str, Any] = {
        "sessions": [check_session_name(check_beginning(name, "--session")) for name in session],
        "allow": list(allow),
        "topics": [check_topic(check_beginning(name, "--topic"), own=True) for name in topic],
        "publishers": [check_beginning(name, "--publisher") for name in publisher],
        "inputs": [check_beginning(name, "--input") for name in input_name],
        "roles": list(role),
        "cache": cache,
    }
    given = {name: value for name, value in scope.items() if value or name == "allow"}
    claims = {"sub": user, "exp": int(time.time()) + _seconds(expires), "wakeline": given}
    named = {"iss": settings.token_issuer, "aud": settings.token_audience}
    claims |= {name: value for name, value in named.items() if value is not None}
    print(jwt.encode({"alg": "HS256"}, claims, shared_key(_secret(settings))))


def _secret(settings: Settings) -> str:
    if settings.token_secret is None:
        raise SettingsInvalidError(
            "expected token_secret in WAKELINE_TOKEN_SECRET or in the file of --config",
            hint="Give the gateway and this command the same: export WAKELINE_TOKEN_SECRET=$(openssl rand -hex 32).",
        )
    return settings.token_secret


def _seconds(text: str) -> int:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise RequestInvalidError(
            f"expected --expires to be such as 30s, 15m, 1h or 30d, got {text[:40]!r}",
            hint="Write a whole number and s, m, h or d.",
        )
    return int(found[1]) * _UNITS[found[2]]
