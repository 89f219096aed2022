"""Reaching: how each namespace of Temporal is called, and how its payloads are read.

It keeps the connections with their health, lists workflows, reads which session a workflow names itself, puts failures
and results into their reported form, and asks for which tasks Temporal starts workers. `following` and `inputs` use it,
and `app` starts it. Open `connection.py` first.
"""

from __future__ import annotations

from wakeline.gateway.reaching.connection import Connection, Options
from wakeline.gateway.reaching.namespaces import Namespaces
from wakeline.gateway.reaching.naming import SESSION_ATTRIBUTE, SESSION_MEMO, session_of
from wakeline.gateway.reaching.options import options_of
from wakeline.gateway.reaching.reported import decoded_item, json_of
from wakeline.gateway.reaching.reported import failure as describe_failure
from wakeline.gateway.reaching.reported import result as describe_result
from wakeline.gateway.reaching.serverless import Serverless
from wakeline.gateway.reaching.visibility import Visibility, can_be_quoted, quoted, written

__all__ = [
    "SESSION_ATTRIBUTE",
    "SESSION_MEMO",
    "Connection",
    "Namespaces",
    "Options",
    "Serverless",
    "Visibility",
    "can_be_quoted",
    "decoded_item",
    "describe_failure",
    "describe_result",
    "json_of",
    "options_of",
    "quoted",
    "session_of",
    "written",
]
