"""Which run an input is for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wakeline.errors import RequestInvalidError, RunClosedError, SessionNotFoundError, WorkflowNotFoundError
from wakeline.gateway.inputs import Asked
from wakeline.gateway.inputs.targets import Rule, Targets
from wakeline.gateway.log import NewSession
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.reaching import Namespaces, Options
from wakeline.gateway.rules import Start
from wakeline.gateway.sessions import Run, Runs

SAY = Asked(id="k", kind="update", name="say")
CHAT = Rule("chat", Start(sessions=("chat-*",), workflow_type="Chat", task_queue="chats", update=True))


class Unwatched:
    """Followers that find nothing."""

    async def watch(self, session: str) -> None:
        pass


class Scene:
    def __init__(self, *rules: Rule) -> None:
        self.engine = MemoryEngine()
        self.runs = Runs(self.engine)
        namespaces = Namespaces([Options(address="127.0.0.1:1")], lambda call, outcome: None)
        nobody: Any = Unwatched()
        self.targets = Targets({rule.name: rule.start for rule in rules}, self.engine, self.runs, namespaces, nobody)

    async def has(self, name: str, *, workflow_id: str = "chat-1", status: Any = "running") -> None:
        await self.engine.create_session(NewSession("chat-1"))
        await self.runs.put("chat-1", Run(workflow_id, name, name, name, "Chat", "", status=status))


async def test_a_run_whose_first_event_is_not_there_yet_gets_inputs() -> None:
    scene = Scene()
    await scene.has("r1")
    target = await scene.targets.of("chat-1", SAY, None)
    state = await scene.engine.state("chat-1")
    assert state is not None
    assert (target.run, target.epoch) == ("r1", state.epoch)


@pytest.mark.parametrize("asked", [SAY, msgspec.structs.replace(SAY, run="r1")])
async def test_a_run_that_a_deletion_has_left_gets_no_input_and_does_not_begin_the_session_again(asked: Asked) -> None:
    scene = Scene()
    await scene.has("r1")
    await scene.engine.delete_session("chat-1")
    with pytest.raises(SessionNotFoundError):
        await scene.targets.of("chat-1", asked, None)
    assert await scene.engine.state("chat-1") is None
    target = await scene.targets.of("chat-1", SAY, CHAT)
    assert (target.run, target.starting is not None) == ("", True)


async def test_an_input_without_a_rule_needs_an_open_run() -> None:
    scene = Scene()
    await scene.engine.create_session(NewSession("chat-1"))
    with pytest.raises(WorkflowNotFoundError):
        await scene.targets.of("chat-1", SAY, None)
    await scene.has("r1", status="completed")
    with pytest.raises(RunClosedError):
        await scene.targets.of("chat-1", SAY, None)


async def test_with_several_open_runs_the_session_s_own_workflow_gets_the_input() -> None:
    scene = Scene()
    await scene.has("r1", workflow_id="helper")
    await scene.has("r2")
    assert (await scene.targets.of("chat-1", SAY, None)).run == "r2"
    assert (await scene.targets.of("chat-1", msgspec.structs.replace(SAY, run="r1"), None)).run == "r1"
    await scene.has("r2", status="completed")
    await scene.has("r3", workflow_id="another")
    with pytest.raises(RequestInvalidError):
        await scene.targets.of("chat-1", SAY, None)


async def test_a_rule_starts_its_workflow_if_no_run_is_open() -> None:
    scene = Scene()
    target = await scene.targets.of("chat-1", SAY, CHAT)
    assert (target.run, target.run_id, target.workflow_id) == ("", "", "chat-1")
    assert target.starting is not None
    await scene.has("r1")
    target = await scene.targets.of("chat-1", SAY, CHAT)
    assert (target.run, target.starting is not None) == ("r1", True)


async def test_a_session_s_rule_leaves_an_update_to_another_workflow_that_is_open() -> None:
    scene = Scene()
    await scene.has("r1", workflow_id="agent")
    target = await scene.targets.of("chat-1", SAY, CHAT)
    assert (target.run, target.starting) == ("r1", None)
    named = msgspec.structs.replace(SAY, start="chat")
    target = await scene.targets.of("chat-1", named, CHAT)
    assert (target.run, target.workflow_id, target.starting is not None) == ("", "chat-1", True)


async def test_a_wrong_run_id_is_answered_with_the_open_ones() -> None:
    scene = Scene()
    await scene.has("r1")
    await scene.has("r2", workflow_id="helper", status="completed")
    with pytest.raises(WorkflowNotFoundError, match="run id of a run of session 'chat-1', got 'xyz'") as raised:
        await scene.targets.of("chat-1", msgspec.structs.replace(SAY, run="xyz"), None)
    assert raised.value.hint.endswith("the run ids of open runs: r1.")


async def test_a_first_message_whose_token_does_not_allow_the_start_learns_of_it() -> None:
    with pytest.raises(SessionNotFoundError) as raised:
        await Scene(CHAT).targets.of("chat-1", SAY, None)
    assert "$start.chat" in raised.value.hint
