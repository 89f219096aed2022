"""The record of a session's runs."""

from __future__ import annotations

import msgspec

from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Run, Runs


def run(number: int, **how: object) -> Run:
    return msgspec.structs.replace(
        Run("chat", f"run-{number}", f"run-{number}", f"run-{number}", "Chat", "2026-11-21T05:14:43.123Z"), **how
    )


async def test_the_record_keeps_what_is_open_or_owed_and_the_last_of_what_is_over() -> None:
    engine = MemoryEngine()
    await engine.open()
    runs = Runs(engine)
    await runs.restore("s", [run(0), run(1, status="failed", owed=True)])
    await runs.restore("other", [run(number, status="completed") for number in range(2, 1002)])
    for number in range(2, 1002):
        await runs.put("s", run(number, status="completed"))
    assert len(await runs.of("s")) == 1002
    for number in range(1002, 1012):
        await runs.put("s", run(number))
        await runs.put("s", run(number, status="terminated"))
    kept = [each.run for each in await runs.of("s")]
    assert kept == ["run-0", "run-1", *(f"run-{number}" for number in range(12, 1012))]
    assert len(await runs.of("other")) == 1000
    assert {each.run for session, each in await runs.unfinished() if session == "s"} == {"run-0", "run-1"}
