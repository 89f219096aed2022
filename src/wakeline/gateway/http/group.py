"""Groups of routes: `route` makes a method of a `Group` the handler of a route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from wakeline.gateway.http.parts import Parts

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


class Group:
    """Routes that belong together.

    Args:
        parts: The parts of the gateway that they call.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        """Return the group's routes."""
        handlers = [getattr(self, name) for name, member in vars(type(self)).items() if hasattr(member, "route")]
        return [handler.route(handler) for handler in handlers]


def route(method: str, path: str, query: str = "", *, repeated: str = "", **how: Any) -> Callable[[_Handler], _Handler]:
    """Declare a route and its query parameters.

    Args:
        method: Its method.
        path: Its path.
        query: Its query parameters, each given at most once; `*` ignores unknown ones. (Every route accepts `ticket`.)
        repeated: A further one that may be given several times.
        how: Further arguments of aiohttp's routes.
    """

    def mark(handler: Any) -> Any:
        handler.route = lambda bound: web.RouteDef(method, path, bound, how)
        handler.parameters = {**dict.fromkeys(query.split(), False), **({repeated: True} if repeated else {})}
        return handler

    return mark
