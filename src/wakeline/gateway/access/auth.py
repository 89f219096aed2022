"""Authentication: determine a request's grant from its token, cookie or ticket.

Logs and answers never contain a token, nor any of its claims before the signature was verified.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, get_args

import msgspec
from aiohttp import hdrs, web
from joserfc.errors import JoseError
from joserfc.jws import CompactSignature, JWSRegistry, extract_compact, validate_compact

from wakeline.errors import (
    RequestInvalidError,
    SessionNameInvalidError,
    TokenExpiredError,
    TokenInvalidError,
    TokenMissingError,
    TopicInvalidError,
)
from wakeline.events import check_beginning, check_session_name, check_topic
from wakeline.gateway.access.grants import ANYONE, Action, Grant, Signer
from wakeline.gateway.access.guard import Guard
from wakeline.gateway.access.keys import Keys
from wakeline.gateway.access.tickets import Tickets
from wakeline.gateway.delivery import Topics
from wakeline.gateway.setting_refusals import meant
from wakeline.gateway.settings import Settings

COOKIE: Final = "wakeline_token"
MAX_TOKEN_BYTES: Final = 8 * 1024
_NOT_BEFORE_LEEWAY: Final = 30.0
"""Seconds by which an issuer's clock may be ahead. `exp` has no leeway, so streams end at the time it names."""
_LAST_EXP: Final = 253_402_300_800.0
"""The year 10000. A later `exp` is a mistake, usually a time in milliseconds."""
_CACHED: Final = 10_000


class _Scope(msgspec.Struct, forbid_unknown_fields=True):
    """The claim `wakeline`.

    An unknown member is refused, because it could be a misspelt restriction.
    """

    sessions: list[str] = []
    allow: frozenset[Action] = frozenset()
    topics: list[str] | None = None
    cache: bool = False
    publishers: list[str] = []
    inputs: list[str] | dict[str, list[str]] = []
    roles: list[str] = []


class _Claims(msgspec.Struct):
    sub: str
    exp: float
    nbf: float | None = None
    iss: str | None = None
    aud: str | list[str] | None = None
    wakeline: _Scope = msgspec.field(default_factory=_Scope)


class _Registry(JWSRegistry):
    """Accepts headers as long as a token, and ignores unknown members as RFC 7515 requires."""

    max_header_length = MAX_TOKEN_BYTES

    def get_alg(self, name: str) -> Any:
        """Return the algorithm without a warning for `EdDSA`; `Keys` has already chosen it."""
        return self.algorithms[name]


_registry = _Registry(strict_check_header=False)
_claims = msgspec.json.Decoder(_Claims)
_CORRECT_CLAIM: Final = "The key is the gateway's: have the issuer correct the claim that the message names."
_ASK_ISSUER: Final = (
    "Request a new one from the issuer whose keys token_jwks names, with the gateway's token_issuer and token_audience."
)
# Secrets are often made by `openssl rand -hex`, and then decoded by the service that signs.
_SIGN_WITH_TEXT: Final = (
    "Sign with the text of token_secret in UTF-8 as it stands: if it looks like hex or base64, do not decode it."
)


class _ClaimInvalidError(TokenInvalidError):
    """A claim, of a token that the gateway's key has signed, with a value that it cannot have."""

    hint = _CORRECT_CLAIM


class Auth:
    """Authenticates requests and tokens.

    Args:
        settings: The required `iss`, and the value that `aud` must be or contain; None accepts any.
        keys: Verify tokens; None if the gateway requires no token.
        tickets: The tickets that were issued.
        guard: Checks which page sent a cookie.
    """

    def __init__(self, settings: Settings, keys: Keys | None, tickets: Tickets, guard: Guard) -> None:
        self._keys = keys
        self._tickets = tickets
        self._guard = guard
        self._issuer = settings.token_issuer
        self._audience = settings.token_audience
        self._has_secret = settings.token_secret is not None
        self._verified: OrderedDict[bytes, Grant] = OrderedDict()
        self._version = 0

    async def authenticate(self, request: web.Request) -> Grant:
        """Return the grant of a request's caller.

        Raises:
            TokenMissingError: The request has no token, cookie or ticket.
            TokenInvalidError: The token or ticket is not valid, or two of them disagree.
            TokenExpiredError: The token has expired.
            UnavailableError: Tickets or the issuer's keys cannot be read now.
            OriginRefusedError: The request has a cookie, and an allowed page may not have sent it.
        """
        if self._keys is None:
            return ANYONE
        for name in ("token", "access_token"):
            if name in request.query:
                raise TokenInvalidError(
                    f"expected no ?{name}= in the URL, because URLs are logged",
                    hint="Send the token as Authorization: Bearer …, or a ticket from POST /v1/tickets as ?ticket=.",
                )
        bearer, cookie = _bearer(request), _cookie(request)
        if cookie is not None and bearer is None:
            self._guard.check_cookie(request)
        if bearer is not None and cookie not in (None, bearer):
            raise TokenInvalidError(
                "expected one token, got different ones in the cookie and in Authorization",
                hint="Send the token in one way only, or the same one in both.",
            )
        token = bearer if bearer is not None else cookie
        grant = await self.verify(token) if token is not None else None
        tickets = request.query.getall("ticket", [])
        if tickets:
            ticketed = await self._tickets.use(tickets[0])
            if len(tickets) > 1 or grant not in (None, ticketed):
                raise TokenInvalidError(
                    "expected one ticket, without a token or with the token it was issued for",
                    hint="Send one ticket alone.",
                )
            grant = ticketed
        if grant is None:
            raise TokenMissingError("expected a token, got none")
        return grant

    async def verify(self, token: str) -> Grant:
        """Return what a token grants, after its signature and claims were verified.

        Raises:
            TokenInvalidError: The token is not valid for this gateway; the message names the claim.
            TokenExpiredError: The token has expired.
            UnavailableError: The issuer's keys could not be fetched yet.
        """
        if self._keys is None:
            return ANYONE
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenInvalidError(f"expected a token of at most {MAX_TOKEN_BYTES} bytes, got {len(token)}")
        if self._version != self._keys.version:  # a key that verified a cached token may have been withdrawn
            self._verified.clear()
            self._version = self._keys.version
        key = sha256(token.encode(errors="replace")).digest()
        grant = self._verified.get(key)
        if grant is None:
            try:
                payload, signer = await _payload(token, self._keys)
            except TokenInvalidError as error:
                if not self._has_secret and "hint" not in vars(error):
                    error.hint = _ASK_ISSUER  # `wakeline token` has no key that could sign one
                raise
            grant = self._grant(payload, signer)
            self._verified[key] = grant
            if len(self._verified) > _CACHED:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(key)
        if grant.seconds_left() == 0:
            ended, now = _utc(grant.expires or 0), _utc(time.time())
            raise TokenExpiredError(
                f"the token of {grant.user!r} expired at {ended} UTC, the gateway's clock has {now}"
            )
        return grant

    def _grant(self, payload: bytes, signer: Signer | None) -> Grant:
        claims = _decoded(payload)
        if not claims.sub or len(claims.sub.encode()) > 256:
            raise _ClaimInvalidError("expected the claim sub to name the user in 1 to 256 bytes")
        if not 0 < claims.exp < _LAST_EXP:
            raise _ClaimInvalidError("expected the claim exp in seconds since 1970")
        if claims.nbf is not None and claims.nbf > time.time() + _NOT_BEFORE_LEEWAY:
            raise _ClaimInvalidError(
                f"expected a token that is valid now, got one from {_utc(min(claims.nbf, _LAST_EXP - 1))} UTC on (nbf), "
                f"the gateway's clock has {_utc(time.time())}",
                hint="Try again after that time; compare the clocks of the issuer and the gateway.",
            )
        if self._issuer is not None and claims.iss != self._issuer:
            raise _ClaimInvalidError("expected the claim iss to be the gateway's token_issuer")
        named = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
        if self._audience is not None and self._audience not in named:
            raise _ClaimInvalidError("expected the claim aud to name the gateway's token_audience")
        scope = claims.wakeline
        _check_stars(scope)
        try:
            sessions = tuple(check_session_name(name) for name in scope.sessions)
            topics = None if scope.topics is None else Topics(check_topic(name, own=True) for name in scope.topics)
        except SessionNameInvalidError:
            raise _ClaimInvalidError("expected names, or prefixes with *, in the claim wakeline.sessions") from None
        except TopicInvalidError:
            raise _ClaimInvalidError("expected names, or prefixes with *, in the claim wakeline.topics") from None
        if not all(1 <= len(name) <= 256 and name.isascii() and name.isprintable() for name in scope.publishers):
            raise _ClaimInvalidError("expected names, or prefixes with *, in the claim wakeline.publishers")
        publishers = tuple(scope.publishers)
        return Grant(
            claims.sub,
            sessions,
            scope.allow,
            topics,
            claims.exp,
            scope.cache,
            publishers,
            signer,
            _inputs(scope),
            tuple(scope.roles),
        )


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _check_stars(scope: _Scope) -> None:
    """Refuse a star that is not at the end of a name, where it is no wildcard.

    Raises:
        TokenInvalidError: A claim has one.
    """
    inputs = scope.inputs if isinstance(scope.inputs, dict) else {"": scope.inputs}
    claims = {
        "sessions": scope.sessions,
        "topics": scope.topics or [],
        "publishers": scope.publishers,
        "inputs": [*inputs, *(name for names in inputs.values() for name in names)],
    }
    for claim, names in claims.items():
        for name in names:
            try:
                check_beginning(name, f"each name of the claim wakeline.{claim}")
            except RequestInvalidError as error:
                raise _ClaimInvalidError(error.message, hint=f"{_CORRECT_CLAIM} {error.hint}") from None


def _inputs(scope: _Scope) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the names of inputs by pattern of sessions; a list is for all sessions."""
    by_session = scope.inputs if isinstance(scope.inputs, dict) else {"*": scope.inputs}
    return tuple((session, tuple(names)) for session, names in by_session.items() if names)


async def _payload(token: str, keys: Keys) -> tuple[bytes, Signer | None]:
    """Return a token's payload and its signer.

    Raises:
        TokenInvalidError: The token is not signed, or not with one of the gateway's keys.
    """
    try:
        signed: CompactSignature = extract_compact(token.encode(), registry=_registry)
        header: dict[str, Any] = signed.headers()
        alg, kid, critical = header.get("alg"), header.get("kid"), "crit" in header
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        raise TokenInvalidError("expected a JWT: three parts of base64url, the first a JSON object with alg") from None
    if critical:
        raise TokenInvalidError("expected a token without crit in its header: the gateway supports no extensions")
    key, signer = await keys.find(alg, kid)
    try:
        good = validate_compact(signed, key, registry=_registry)
    except (JoseError, ValueError, TypeError):
        good = False
    if not good:
        hint = _SIGN_WITH_TEXT if signer is None else None
        raise TokenInvalidError("expected a token signed with the gateway's key, got another signature", hint=hint)
    return signed.payload or b"", signer


def _decoded(payload: bytes) -> _Claims:
    try:
        return _claims.decode(payload)
    except msgspec.ValidationError as error:
        # A trusted issuer signed these claims, so the answer may quote them: the issuer needs to know the claim to fix.
        said = str(error)[:200]
        action = re.match(r"Invalid enum value ('.*') - at `\$\.wakeline\.allow", said)
        if action is not None:
            raise _ClaimInvalidError(
                f"expected actions in the claim wakeline.allow, of {', '.join(get_args(Action))}, got {action[1]}",
                hint=f"{_CORRECT_CLAIM[:-1]}{meant(action[1][1:-1], get_args(Action)) or '.'}",
            ) from None
        unknown = re.match(r"Object contains unknown field `([^`]*)` - at `\$\.wakeline`", said)
        if unknown is None:
            raise _ClaimInvalidError(f"expected the claims of a Wakeline token, got: {said}") from None
        known = _Scope.__struct_fields__
        raise _ClaimInvalidError(
            f"expected a member of the claim wakeline, one of {', '.join(known)}, got {unknown[1]!r}",
            hint=f"{_CORRECT_CLAIM[:-1]}{meant(unknown[1], known) or '.'}",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _ClaimInvalidError("expected the claims to be a JSON object") from None


def _bearer(request: web.Request) -> str | None:
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise TokenInvalidError(
            "expected one header Authorization: Bearer and a token", hint="Send one header Authorization: Bearer TOKEN."
        )
    return token.strip()


def _cookie(request: web.Request) -> str | None:
    """Return the cookie's token.

    Two different ones are refused, because a sibling domain can set the second.
    """
    pairs = [part.strip().partition("=") for part in "; ".join(request.headers.getall(hdrs.COOKIE, [])).split(";")]
    values = {value.strip('"') for name, _, value in pairs if name == COOKIE}
    if len(values) > 1:
        raise TokenInvalidError(
            f"expected one cookie {COOKIE}, got {len(values)}",
            hint="Remove the cookies with this name that another domain or path has set.",
        )
    return values.pop() if values else None
