"""The demo without terminal and browser: it runs by itself and exits with the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from wakeline.cli.demo.approval import APPROVE
from wakeline.cli.demo.scene import KINDS, Scene, counter_line, scene

_GRACE_SECONDS = 60.0
# The order also waits, from its beginning until the phone is back, for somebody to approve its payment.
_SHARES = {"order": 0.35, "agent": 0.85}


async def run_headless(seconds: float) -> bool:
    """Play for about `seconds`; return whether every device received every event once, in order.

    The devices must have received the right ends, too.
    """
    print("starting Temporal, the gateway and a worker", flush=True)
    async with scene("http://127.0.0.1") as stage:
        began = time.monotonic()

        def say(what: str) -> None:
            print(f"{time.monotonic() - began:5.1f} s  {what}", flush=True)

        await asyncio.wait_for(_play(stage, seconds, say), seconds + _GRACE_SECONDS)
        complete = [await device.finish(_GRACE_SECONDS / 2) for device in stage.devices]
        sent, missing, duplicate, wrong = await stage.verdict()
        for device, done in zip(stage.devices, complete, strict=True):
            if not done:
                wrong.append(f"{device.name} did not see every session to its end")
        for play in stage.plays:
            say(f"{play.session}: {play.status}, {play.sent} events")
        for what in wrong:
            say(f"wrong: {what}")
        print(counter_line(sent, missing, duplicate), flush=True)
        return not (missing or duplicate or wrong) and sent > 0


async def _play(stage: Scene, seconds: float, say: Callable[[str], None]) -> None:
    laptop, phone = stage.devices
    laptop.go_online()
    for kind in KINDS:
        # On a slow machine the gateway's restarts take long: the pipeline must still run when it is terminated.
        lasts = seconds * _SHARES[kind] if kind in _SHARES else seconds + _GRACE_SECONDS
        play = await stage.begin(kind, lasts)
        say(f"{play.session} publishes; the laptop watches")

    async def at(share: float) -> None:
        await asyncio.sleep(max(0.0, began + seconds * share - time.monotonic()))

    began = time.monotonic()
    notice = await stage.push.first()
    say(f"the phone, asleep, is notified of {notice.session}: {notice.text}")
    await at(0.15)
    phone.go_online()
    say("the phone joins, in the middle")
    await at(0.25)
    await stage.gateway.kill_and_restart()
    say("the gateway was killed (SIGKILL) and is back")
    await at(0.4)
    await phone.go_offline()
    say("the phone is offline")
    await at(0.5)
    await stage.gateway.kill_and_restart()
    say("the gateway was killed (SIGKILL) and is back")
    await at(0.6)
    phone.go_online()
    say("the phone is back")
    await phone.sessions["order-1"].asked.wait()
    await phone.answer(APPROVE)
    say("the phone answers: approve")
    await at(0.7)
    (pipeline,) = stage.running("pipeline")
    await stage.terminate(pipeline)
    await stage.look()
    say(f"{pipeline.session} was {pipeline.status}")
    while stage.running():
        await asyncio.sleep(0.5)
        await stage.look()
