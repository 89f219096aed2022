"""Routes of answer links: GET shows a request for input as a page, and POST answers it."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Final
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from wakeline.errors import (
    AlreadyResolvedError,
    BodyInvalidError,
    EpochChangedError,
    RequestNotFoundError,
    SessionDeletedError,
    SessionNotFoundError,
    WakelineError,
)
from wakeline.gateway.access import Grant
from wakeline.gateway.http.bodies import read_body
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.link_pages import page, request_page
from wakeline.gateway.notifications import Linked
from wakeline.gateway.requests import Answer, Life, Person
from wakeline.gateway.sessions import InputRequest

DEVICE: Final = "link"
"""The device of answers that are given with a link."""

_FORM: Final = "application/x-www-form-urlencoded"
_MOST_FORM_BYTES: Final = 4_096
_GONE: Final = 410
_UNKNOWN: Final = (RequestNotFoundError, SessionNotFoundError, SessionDeletedError, EpochChangedError)


class LinkRoutes(Group):
    """`/v1/answers`, without a token: the link itself says who answers what."""

    @route("GET", "/v1/answers/{link}", "*")
    async def show(self, request: web.Request) -> web.Response:
        """Return a page with the request and its choices, or its state; change nothing."""
        return await _shown(self._show(request))

    @route("POST", "/v1/answers/{link}", "*")
    async def choose(self, request: web.Request) -> web.Response:
        """Answer the request with the choice of the page's form; return a page with the outcome."""
        return await _shown(self._choose(request))

    async def _show(self, request: web.Request) -> web.Response:
        linked = self._linked(request)
        if linked.expires <= time.time():
            return _expired()
        found = await self._found(linked)
        return request_page(found, linked.user, 200 if _is_answerable(found, linked.user) else _GONE)

    async def _choose(self, request: web.Request) -> web.Response:
        linked = self._linked(request)
        if linked.expires <= time.time():
            return _expired()
        choice = await _chosen(request)
        self._parts.limits.publish(request, Grant(linked.user, (linked.session,), frozenset()), 1)
        found = await self._found(linked)
        choices = found.requested.choices or []
        if not 0 <= choice < len(choices):
            raise BodyInvalidError(f"expected the number of one of {len(choices)} choices, got {choice}")
        answer = Answer(payload=msgspec.Raw(msgspec.json.encode(choices[choice])), device=DEVICE)
        try:
            found = await self._parts.requests.answer(
                linked.session, linked.request, answer, Person(linked.user), life=_life(linked)
            )
        except AlreadyResolvedError:
            found = await self._found(linked)
            return request_page(found, linked.user, _GONE if found.status in ("cancelled", "expired") else 409)
        return request_page(found, linked.user, 200)

    def _linked(self, request: web.Request) -> Linked:
        """Return what the request's link is for.

        Raises:
            RequestNotFoundError: No gateway of this store has made it.
        """
        links = self._parts.links
        linked = None if links is None else links.read(request.match_info["link"])
        if linked is None:
            raise RequestNotFoundError("expected a link that this gateway has made")
        return linked

    async def _found(self, linked: Linked) -> InputRequest:
        return await self._parts.requests.find(linked.session, linked.request, life=_life(linked))


def _life(linked: Linked) -> Life:
    return Life(linked.epoch, linked.asked_at)


def _is_answerable(found: InputRequest, user: str) -> bool:
    return found.resolved is None and all(each.by != user for each in found.answers)


async def _shown(making: Awaitable[web.Response]) -> web.Response:
    """Return a page, also for an error: a person reads it."""
    try:
        return await making
    except _UNKNOWN:
        return page("This link is not valid", ["It is incomplete, or what it was for has been deleted."], status=404)
    except WakelineError as error:
        later = "Please try again in a moment." if error.status in (429, 503, 507) else error.message
        return page("This did not work", [later], status=error.status, headers=error.headers())


def _expired() -> web.Response:
    return page("This link has expired", ["Open the app to see whether an answer is still needed."], status=_GONE)


async def _chosen(request: web.Request) -> int:
    """Return the number of the choice in a form.

    Raises:
        BodyInvalidError: The body is not a form with one choice.
    """
    form = await read_body(request, _MOST_FORM_BYTES)
    try:
        if request.content_type != _FORM:
            raise ValueError
        (choice,) = parse_qs(form.decode("ascii"), strict_parsing=True, max_num_fields=10)["choice"]
        if not (choice.isascii() and choice.isdigit() and len(choice) <= 3):
            raise ValueError
    except (ValueError, KeyError):
        raise BodyInvalidError(f"expected the form of the page, as {_FORM} with choice=NUMBER") from None
    return int(choice)
