"""The records of inputs: one intent for each key, and one outcome."""

from __future__ import annotations

import msgspec

from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Intent, Intents, Settled


def intent(session: str = "s", key: str = "k", epoch: str = "e", run_id: str = "r1", namespace: str = "") -> Intent:
    return Intent(
        session=session,
        epoch=epoch,
        id=key,
        digest="d",
        kind="signal",
        name="say",
        args=msgspec.Raw(b'["hello"]'),
        run="r1",
        run_id=run_id,
        workflow_id="w",
        namespace=namespace,
    )


def settled(data: bytes = b'{"id":"k"}', epoch: str = "e") -> Settled:
    return Settled(epoch=epoch, digest="d", status="completed", data=msgspec.Raw(data))


async def test_an_intent_is_there_until_it_is_finished_and_its_outcome_stays() -> None:
    intents = Intents(MemoryEngine())
    assert await intents.find("s", "k") is None
    await intents.create(intent())
    assert await intents.find("s", "k") == intent()
    assert [found.intent async for found in intents.unfinished()] == [intent()]
    await intents.settle(intent(), settled())
    assert await intents.find("s", "k") == settled()
    await intents.finish(intent(), settled())
    assert await intents.find("s", "k") == settled()
    assert [found async for found in intents.unfinished()] == []


async def test_the_first_outcome_counts() -> None:
    intents = Intents(MemoryEngine())
    first, second = settled(b'{"id":"k","result":1}'), settled(b'{"id":"k","result":2}')
    assert await intents.settle(intent(), first) == first
    assert await intents.settle(intent(), second) == first


async def test_an_input_that_was_settled_meanwhile_is_not_begun_again() -> None:
    intents = Intents(MemoryEngine())
    await intents.settle(intent(), settled())
    assert await intents.create(intent()) == settled()
    assert [found async for found in intents.unfinished()] == []


async def test_of_two_intents_with_one_key_the_first_counts() -> None:
    intents = Intents(MemoryEngine())
    await intents.create(intent(run_id="r1"))
    assert await intents.create(intent(run_id="r2")) == intent(run_id="r1")


async def test_a_gateway_that_aims_late_learns_where_the_other_one_aimed() -> None:
    intents = Intents(MemoryEngine())
    await intents.create(intent())
    assert await intents.aim(intent(), "r2") == intent(run_id="r2")
    assert await intents.aim(intent(), "r2") == intent(run_id="r2")
    assert await intents.aim(intent(run_id="r2"), "r3") == intent(run_id="r3")
    assert await intents.aim(intent(), "r2") == intent(run_id="r3")
    await intents.finish(intent(), settled())
    assert await intents.aim(intent(), "r2") is None


async def test_a_session_s_inputs_are_forgotten_with_it_and_no_others() -> None:
    intents = Intents(MemoryEngine())
    for name in ("s", "s/t", "st"):
        await intents.create(intent(name, "open"))
        await intents.settle(intent(name, "done"), settled())
    await intents.create(intent("s", "later", epoch="f"))
    await intents.forget("s", "e")
    assert await intents.find("s", "open") is None
    assert await intents.find("s", "done") is None
    assert await intents.find("s", "later") is not None
    assert await intents.lives("s") == {"f"}
    await intents.forget("s", "f")
    left = sorted([(found.intent.session, found.intent.id) async for found in intents.unfinished()])
    assert left == [("s/t", "open"), ("st", "open")]
    assert await intents.find("s/t", "done") == settled()


async def test_a_record_that_cannot_be_read_hinders_no_other() -> None:
    engine = MemoryEngine()
    await engine.put_record("inputs.open/a\x1funreadable", b'{"kind": "of a later version"}', revision=0)
    await Intents(engine).create(intent())
    assert [found.intent async for found in Intents(engine).unfinished()] == [intent()]
