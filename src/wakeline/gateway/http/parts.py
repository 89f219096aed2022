"""The parts of the gateway that the routes call."""

from __future__ import annotations

from dataclasses import dataclass, field

from wakeline.gateway.access import Connections, Guard, Tickets
from wakeline.gateway.following import Followers
from wakeline.gateway.http.lasting import Lasting
from wakeline.gateway.notifications import Links, Notifier, WebPush
from wakeline.gateway.reaching import Namespaces
from wakeline.gateway.requests import Requests
from wakeline.gateway.sessions import Archive
from wakeline.gateway.transports.feed import Source


@dataclass(frozen=True, kw_only=True)
class Parts(Source):
    """The gateway's parts, as `app` connects them."""

    tickets: Tickets
    guard: Guard
    connections: Connections
    archive: Archive
    requests: Requests
    notifier: Notifier | None = None
    push: WebPush | None = None
    links: Links | None = None
    lasting: Lasting = field(default_factory=Lasting)
    upstream: Followers | None = None
    temporal: Namespaces | None = None
