"""`wakeline restored`: declares that a data directory was put back to an older state."""

from __future__ import annotations

from pathlib import Path

from wakeline.gateway.stores import declare_restored


def restored(data: Path = Path("wakeline-data")) -> None:
    """Declare that a data directory was put back to an older state.

    Run this command after every restore, before the gateway starts. The gateway detects a database that is a copy in a new
    file, or that is behind the mark beside it. It does not detect a volume that was rolled back, or a directory that was
    written into the existing files. At its next start every session continues in a new epoch, and devices read it again
    from the beginning. An unnecessary declaration has no other effect.

    For example:

        wakeline restored --data /var/lib/wakeline

    Args:
        data: The data directory. No gateway may run on it.
    """
    declare_restored(data)
    print(f"{data}: at the next start every session continues in a new epoch")
