"""Runs end in every way while their users are away and the gateway is killed: each user is notified once of each end."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import aiohttp
import pytest
from aiohttp import web
from temporalio.client import Client
from temporalio.worker import Worker

from tests.faults.test_inputs_soak import ON_SERVERS, gateways, keep_killing
from tests.nodejs import NODE, install
from tests.pushes import Browser, channel, push_service
from tests.receivers import SECRET, Received, Receiver, receiver, status
from tests.soak import SEED, SOAK, dice, times
from tests.support import Served
from tests.temporal.ending_workflows import Ends
from tests.tokens import SECRET as TOKEN_SECRET
from tests.tokens import bearer

FOLDER = Path(__file__).parent
RUNS = times(16, 67)
GATEWAYS = [(1, "simulated"), *([] if SOAK == 1 else [(2, "simulated")]), *ON_SERVERS]
AT_ONCE = 40
GRACE = 3.0
STATUSES = ("completed", "failed", "canceled", "terminated", "timed_out")
RUN_SECONDS = 12
GONE = (aiohttp.ClientError, TimeoutError)


@dataclass
class Life:
    """A run, and what its users' devices were acknowledged.

    Attributes:
        name: The Workflow Id, and the session's name.
        status: How the run ends.
        watched: Whether bob's device watches it; ada's never does.
        away: When each user's device was known, in Unix time.
        ended: The time of `$run.closed`.
        seen: When bob's device had seen that, in Unix time; never, if it does not watch.
    """

    name: str
    status: str
    watched: bool
    away: dict[str, float] = field(default_factory=dict)
    ended: float = 0.0
    seen: float = float("inf")

    def may_be_notified(self, user: str) -> bool:
        return user == "ada" or self.seen > self.ended + GRACE

    def must_be_notified(self, user: str) -> bool:
        seen = self.seen if user == "bob" else float("inf")
        return seen == float("inf") and self.away[user] < self.ended + GRACE


class Soak:
    def __init__(self, client: Client, served: Sequence[Served], queue: str) -> None:
        self._client = client
        self._served = served
        self._queue = queue
        self._chance = dice(7)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def call(self, user: str, method: str, path: str, **how: Any) -> Any:
        """Call until it is answered with success, as a device does."""
        while True:
            try:
                status, answer = await self._chance.choice(self._served).call(
                    method, path, headers=bearer(sub=user), timeout=aiohttp.ClientTimeout(10), **how
                )
                if status == 200:
                    return answer
            except GONE:
                pass
            await asyncio.sleep(0.1)

    async def live(self, life: Life) -> None:
        async with self._slots:
            handle = await self._client.start_workflow(
                Ends.run,
                args=[life.status, False],
                id=life.name,
                task_queue=self._queue,
                run_timeout=timedelta(seconds=RUN_SECONDS) if life.status == "timed_out" else None,
            )
            session = f"/v1/sessions/{life.name}"
            await self.call("ada", "POST", "/v1/runs", json={"workflow_id": life.name})
            epoch = (await self.call("ada", "GET", session))["epoch"]
            for user in ("ada", "bob"):
                await self.call(user, "PUT", f"{session}/devices/phone", json={"seen": f"{epoch}-0"})
                life.away[user] = time.time()
            if life.status == "canceled":
                await handle.cancel()
            elif life.status == "terminated":
                await handle.terminate("enough")
            elif life.status != "timed_out":
                await handle.signal(Ends.end)
            while not (events := (await self.call("ada", "GET", f"{session}/events?topics=$run.closed"))["events"]):
                await asyncio.sleep(0.2)
            (closed,) = events
            assert closed["data"]["status"] == life.status
            life.ended = datetime.fromisoformat(closed["time"]).timestamp()
            if life.watched:
                seen = {"seen": f"{epoch}-{closed['offset'] + 1}"}
                await self.call("bob", "PUT", f"{session}/devices/phone", json=seen)
                life.seen = time.time()


def answering(hook: Receiver, accepted: dict[str, Received], other: JavaScript) -> Any:
    """Verify each request with the official libraries, and fail at the first attempt of every tenth."""
    failed: set[str] = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        found = hook.received[-1]
        assert found.id == request.headers["webhook-id"]
        found.verify()
        other.verify(found)
        if crc32(found.id.encode()) % 10 == 0 and found.id not in failed:
            failed.add(found.id)
            return web.Response(status=500)
        accepted[found.id] = found
        return web.Response()

    return answer


class JavaScript:
    """The JavaScript implementation of Standard Webhooks, which verifies requests as they come: it refuses old ones."""

    def __init__(self, node: asyncio.subprocess.Process) -> None:
        assert node.stdin is not None
        assert node.stdout is not None
        self._requests = node.stdin
        self._verdicts = asyncio.ensure_future(node.stdout.read())

    def verify(self, request: Received) -> None:
        headers = {name: value for name, value in request.headers.items() if name.startswith("webhook-")}
        line = {"headers": headers, "body": base64.b64encode(request.body).decode()}
        self._requests.write(json.dumps(line).encode() + b"\n")

    async def verdicts(self) -> Counter[str]:
        """Its verdicts: `true`, or the error. It ends."""
        self._requests.close()
        return Counter((await self._verdicts).decode().split())


@asynccontextmanager
async def javascript() -> AsyncIterator[JavaScript]:
    install(FOLDER)
    node = await asyncio.create_subprocess_exec(
        str(NODE), str(FOLDER / "verify.mjs"), SECRET, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield JavaScript(node)
    finally:
        if node.returncode is None:
            node.kill()
        await node.wait()


async def nothing_pending(soak: Soak) -> None:
    """Return when no message is left to be sent, in any session."""
    async with asyncio.timeout(60):
        after: str | None = ""
        while after is not None:
            path = f"/v1/notifications?state=pending&limit=100&after={after}"
            page = await soak.call("ada", "GET", path)
            after = page["after"]
            if page["notifications"]:
                after = ""
                await asyncio.sleep(0.5)


@pytest.mark.timeout(480 + RUNS)
@pytest.mark.parametrize(("count", "store"), GATEWAYS)
async def test_each_user_is_notified_once_of_each_end_and_nobody_who_has_seen_it(
    client: Client, tmp_path: Path, count: int, store: str
) -> None:
    queue, over = f"ends-{uuid.uuid4().hex[:8]}", asyncio.Event()
    lives = [Life(f"{queue}-{number}", STATUSES[number % 5], number % 2 == 0) for number in range(RUNS)]
    accepted: dict[str, Received] = {}
    async with (
        javascript() as other,
        receiver() as hook,
        push_service() as service,
        Worker(client, task_queue=queue, workflows=[Ends]),
        gateways(
            count,
            client.service_client.config.target_host,
            tmp_path,
            store,
            WAKELINE_TOKEN_SECRET=TOKEN_SECRET,
            WAKELINE_NOTIFY=json.dumps({"ends": {"topics": ["$run.closed"], "grace": GRACE}}),
            WAKELINE_CHANNELS=json.dumps({"ops": hook.channel(), "phones": channel()}),
            WAKELINE_OUTGOING_NETWORKS="127.0.0.1",
        ) as running,
        AsyncExitStack() as stack,
    ):
        hook.always = answering(hook, accepted, other)
        began = time.monotonic()
        served = [await stack.enter_async_context(Served(gateway.url)) for gateway in running]
        soak = Soak(client, served, queue)
        browsers = {user: service.browser(user) for user in ("ada", "bob")}
        for user, browser in browsers.items():
            await browser.subscribe(served[0], headers=bearer(sub=user))
            service.answers[user] += [status(503)] * 2
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(keep_killing(running, over, dice(21)))
            async with asyncio.TaskGroup() as living:
                for life in lives:
                    living.create_task(soak.live(life))
            expected = {(life.name, user) for life in lives for user in life.away if life.must_be_notified(user)}
            async with asyncio.timeout(60):
                while expected - {of(request) for request in accepted.values()} or expected - pushed(browsers).keys():
                    await asyncio.sleep(0.1)
            over.set()
        seconds = time.monotonic() - began
        await nothing_pending(soak)
        for gateway in running:
            assert await gateway.stop() == 0
        tampered = Received(hook.received[0].headers, hook.received[0].body + b" ")
        other.verify(tampered)
        verdicts = await other.verdicts()
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for request in hook.received:
        ids[of(request)].add(request.id)
    allowed = {(life.name, user) for life in lives for user in life.away if life.may_be_notified(user)}
    late = sum(life.watched and life.may_be_notified("bob") for life in lives)
    print(
        f"{count} gateways, {store}, seed {SEED}: {RUNS} runs in {seconds:.0f} s, {killing.result()} kills: "
        f"{len(expected)} notifications expected, "
        f"{len(accepted)} ids accepted in {len(hook.received)} requests; {late} seen too late to decide"
    )
    assert expected <= set(ids) <= allowed
    assert {key: found for key, found in ids.items() if len(found) != 1} == {}, "one id for each user and end"
    assert len({request.body for request in hook.received}) == len(accepted), "one id is one body"
    assert len(expected) >= 1.4 * RUNS
    assert verdicts == Counter({"true": len(hook.received), "No_matching_signature_found": 1})
    pushes = pushed(browsers)
    assert expected <= pushes.keys() <= allowed
    assert {key: tags for key, tags in pushes.items() if len(tags) != 1} == {}, "one tag for each user and end"
    statuses = {life.name: life.status for life in lives}
    for request in accepted.values():
        (event,) = request.data["events"]
        assert event["data"]["status"] == statuses[request.data["session"]]


def pushed(browsers: Mapping[str, Browser]) -> dict[tuple[str, str], set[str]]:
    """The tags of the pushes for each session and user, decrypted by another library."""
    tags: dict[tuple[str, str], set[str]] = defaultdict(set)
    for user, browser in browsers.items():
        for notification in browser.shown():
            tags[notification["data"]["session"], user].add(notification["tag"])
    return tags


def of(request: Received) -> tuple[str, str]:
    return request.data["session"], request.data["user"]
