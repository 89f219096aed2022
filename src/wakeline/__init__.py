"""Wakeline: durable sessions for Temporal workflows.

`SessionClient` and its kin are found here, but imported only when they are asked for: workflow code imports
`wakeline.streams`, and the workflow sandbox would import everything that is imported here with it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wakeline.client import Retention, SessionClient, SessionEvent, SyncSessionClient

__all__ = ["Retention", "SessionClient", "SessionEvent", "SyncSessionClient"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """One of `__all__`, when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wakeline import client

    return getattr(client, name)
