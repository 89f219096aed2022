"""Access: who the caller is, what the caller may do, and how much of the gateway it may use.

A token, cookie or ticket becomes a `Grant`. The guard checks origins and hosts. Connections and requests are limited.
Every room above `delivery` may import it. Open `grants.py` first, then `auth.py`, which authenticates requests.
"""

from __future__ import annotations

from wakeline.gateway.access.addresses import Addresses
from wakeline.gateway.access.auth import Auth
from wakeline.gateway.access.connection import MAX_HEAD_BYTES, HttpConnection, close_after
from wakeline.gateway.access.connections import Connections
from wakeline.gateway.access.grants import (
    ANYONE,
    GRANT,
    NOBODY,
    Action,
    Grant,
    Signer,
    WhileGranted,
    announce_end,
    expiring,
)
from wakeline.gateway.access.guard import ANSWERS, PUBLISHING_HEADERS, Guard
from wakeline.gateway.access.keys import Keys, shared_key
from wakeline.gateway.access.limits import Limits
from wakeline.gateway.access.tickets import TICKET_SECONDS, Tickets
