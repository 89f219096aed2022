"""A store that gateways share as processes of their own: it is kept by the test's process, and reached over a Unix socket.

    async with served_store(SharedStore(), directory) as variables:
        gateway = GatewayProcess(data, environment=variables)

A gateway that is killed loses its connection, and the calls that have reached the store take effect: as with a database.
Gateways must be forked (`tests.commands`).
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.sharing import Faults, SharedEngine, SharedStore
from wakeline.background import begin, cancel_all
from wakeline.errors import StorageFailedError, WakelineError
from wakeline.gateway import stores
from wakeline.gateway.log import Commit, Engine, Listener

VARIABLE = "TESTS_STORE"
_SIZE = 4


async def _read(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(_SIZE), "big")
    return pickle.loads(await reader.readexactly(size))


def _write(writer: asyncio.StreamWriter, *said: Any) -> None:
    data = pickle.dumps(said)
    writer.write(len(data).to_bytes(_SIZE, "big") + data)


@asynccontextmanager
async def served_store(
    store: SharedStore, directory: Path, faults: Faults | None = None
) -> AsyncIterator[dict[str, str]]:
    """Keep a store for as long as the block lasts; yield the environment of a gateway that uses it."""
    seeds, path = itertools.count(), directory / "store"
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = begin(_serve(store, store.engine(faults, next(seeds)), reader, writer), connections)
        serving.add_done_callback(lambda _: writer.transport.abort())

    server = await asyncio.start_unix_server(connected, path)
    try:
        yield {VARIABLE: str(path)}
    finally:
        server.close()
        await cancel_all(*connections)


async def _serve(
    store: SharedStore, engine: SharedEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Do what one gateway asks for, until it is gone."""
    calls: set[asyncio.Task[None]] = set()
    ends: dict[str, list[Callable[[], None]]] = {}
    engine.feed.listen(lambda commits: _write(writer, "commits", list(commits)))
    await engine.open()

    async def call(number: int, name: str, args: Sequence[Any], how: dict[str, Any]) -> None:
        try:
            answer = await getattr(engine, name)(*args, **how)
        except WakelineError as error:
            _write(writer, "refused", number, type(error), error.args, error.__dict__)
        else:
            _write(writer, "done", number, answer)

    try:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                number, name, args, how = await _read(reader)
                if name == "subscribe":
                    ends.setdefault(args[0], []).append(engine.subscribe(args[0], lambda *_: None))
                elif name == "unsubscribe":
                    ends[args[0]].pop()()
                else:
                    begin(call(number, name, args, how), calls)
    finally:
        store.leave(engine)
        await engine.close()
        await asyncio.gather(*calls, return_exceptions=True)


def _remote(name: str) -> Any:
    async def call(engine: RemoteEngine, *args: Any, **how: Any) -> Any:
        return await engine.ask(name, *args, **how)

    return call


class RemoteEngine(Engine):
    """A gateway's way to a store that another process keeps.

    Args:
        path: The store's socket.
    """

    shared = True

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._hearing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._hearing = asyncio.create_task(self._hear(reader))

    async def close(self) -> None:
        await cancel_all(self._hearing)
        if self._writer is not None:
            self._writer.close()

    async def ask(self, name: str, *args: Any, **how: Any) -> Any:
        """Have the store do something; the calls reach it in this order."""
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._say(number, name, *args, **how)
        return await answer

    def _say(self, number: int, name: str, *args: Any, **how: Any) -> None:
        assert self._writer is not None
        _write(self._writer, number, name, args, how)

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        end = self.feed.subscribe(session, listener)
        self._say(0, "subscribe", session)

        def unsubscribe() -> None:
            end()
            self._say(0, "unsubscribe", session)

        return unsubscribe

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self._heard(*await _read(reader))
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(StorageFailedError("the store cannot be reached"))

    def _heard(self, kind: str, *said: Any) -> None:
        if kind == "commits":
            commits: list[Commit] = said[0]
            self.feed.announce_all(commits)
            return
        answer = self._asked.pop(said[0])
        if answer.done():
            return
        if kind == "done":
            answer.set_result(said[1])
        else:
            error: WakelineError = said[1].__new__(said[1])
            error.args, error.__dict__ = said[2], said[3]
            answer.set_exception(error)

    append: Any = _remote("append")
    open_attempt: Any = _remote("open_attempt")
    read: Any = _remote("read")
    read_back: Any = _remote("read_back")
    state: Any = _remote("state")
    forget_publisher: Any = _remote("forget_publisher")
    trim: Any = _remote("trim")
    get_records: Any = _remote("get_records")
    records_after: Any = _remote("records_after")
    count_records: Any = _remote("count_records")
    change_record: Any = _remote("change_record")
    create_session: Any = _remote("create_session")
    configure: Any = _remote("configure")
    delete_session: Any = _remote("delete_session")
    sessions: Any = _remote("sessions")
    newest: Any = _remote("newest")
    due: Any = _remote("due")
    offset_within: Any = _remote("offset_within")
    offset_at: Any = _remote("offset_at")
    published: Any = _remote("published")


def use(path: str) -> None:
    """Have this process's gateway use the store of another process."""
    stores.engine_of = lambda settings: RemoteEngine(path)
