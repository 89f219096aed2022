"""`wakeline drain`: bring a publisher's spool to the gateway."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from wakeline.cli.failures import message_of, tell
from wakeline.errors import UnavailableError
from wakeline.publisher.drain import drain as drain_all
from wakeline.publisher.errors import PublishDroppedError, SpoolError
from wakeline.publisher.pace import pause_after
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.spool import Spool

_REFUSED = 1


def drain(
    file: Path,
    /,
    *,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
    wait: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Send what a SessionPublisher left in its spool, in order, each event once; print how many there were.

    Publishers that use the file may go on meanwhile. Doing it twice, or stopping it in the middle, is harmless. Events that the
    gateway refuses are put aside in the file, and told; the exit code is then 1.

    For example:

        wakeline drain spool.db --url https://wakeline.example

    Args:
        file: The spool.
        url: The gateway.
        token: Who is publishing; must reach every session in the file.
        wait: Where the gateway is away, try again until it is there, rather than end with exit code 2.
    """
    if not file.is_file():
        raise SpoolError(
            f"expected a spool, there is no file {file}",
            hint="Give the path that the publisher's spool=… names; where nothing is spooled, there is nothing to send.",
        )
    sent, refused = asyncio.run(_drain(Spool.at(file), url, token, wait=wait))
    print(f"sent {sent:,} · refused {sum(len(error.bodies) for error in refused):,}")
    for error in refused:
        tell(error)
    if refused:
        sys.exit(_REFUSED)


async def _drain(spool: Spool, url: str, token: str | None, *, wait: bool) -> tuple[int, list[PublishDroppedError]]:
    waiting = await spool.do(spool.waiting)
    notices = Console(stderr=True, highlight=False, soft_wrap=True)
    sent = 0
    refused: list[PublishDroppedError] = []

    def progress(count: int) -> None:
        nonlocal sent
        sent += count
        if notices.is_terminal:
            notices.print(f"sent {sent:,} of {max(waiting, sent):,}", end="\r")

    connection = shared_connection(url, token)
    failures = 0
    while True:
        try:
            await drain_all(spool, connection, refused, progress)
            return sent, refused
        except UnavailableError as error:
            if not wait:
                raise
            failures += 1
            if failures == 1:
                notices.print(f"{message_of(error)}; trying again")
            await asyncio.sleep(pause_after(failures))
