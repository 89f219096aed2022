"""`wakeline restored`: declare that a data directory was put back to an older state."""

from __future__ import annotations

from pathlib import Path

from wakeline.gateway.app import declare_restored


def restored(data: Path = Path("wakeline-data")) -> None:
    """Declare that a data directory was put back to an older state: no cursor from before is served any more.

    The gateway finds out by itself where the database is a copy, or behind the mark beside it. It cannot where a whole volume
    was rolled back, as by a snapshot: run this after it, before the gateway is started. At its next start every session goes on
    in a new epoch, and devices read it again from the beginning. Doing it without need costs that and nothing else.

    For example:

        wakeline restored --data /var/lib/wakeline

    Args:
        data: The data directory. No gateway may run on it.
    """
    declare_restored(data)
    print(f"{data}: at the next start every session goes on in a new epoch")
