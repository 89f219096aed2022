"""`wakeline drain`: send a publisher's spool to the gateway."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from wakeline.cli.failures import message_of, print_error
from wakeline.errors import UnavailableError
from wakeline.publisher.drain import drain as drain_all
from wakeline.publisher.errors import PublishDroppedError, SpoolError
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.spool import Spool
from wakeline.retry import Backoff

_REFUSED = 1


def drain(
    file: Path,
    /,
    *,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
    wait: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Send the events in a SessionPublisher's spool, in order, each once; print their number.

    Publishers that use the file may continue meanwhile. The command may be repeated, and stopped in the middle. Events
    that the gateway refuses are set aside in the file and reported; the exit code is then 1.

    For example:

        wakeline drain spool.db --url https://wakeline.example

    Args:
        file: The spool.
        url: The gateway.
        token: The publisher's token; it must reach every session in the file.
        wait: If the gateway is away, retry until it is back; otherwise the exit code is then 2.
    """
    if not file.is_file():
        raise SpoolError(
            f"expected a spool, there is no file {file}",
            hint="Pass the path that the publisher's spool=… names; if nothing was spooled, there is nothing to send.",
        )
    sent, refused = asyncio.run(_drain(Spool.at(file), url, token, wait=wait))
    print(f"sent {sent:,} · refused {sum(len(error.bodies) for error in refused):,}")
    for error in refused:
        print_error(error)
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
    backoff = Backoff()
    while True:
        try:
            await drain_all(spool, connection, refused, progress)
            return sent, refused
        except UnavailableError as error:
            if not wait:
                raise
            if backoff.failures == 0:
                notices.print(f"{message_of(error)}; retrying")
            await backoff.wait()
