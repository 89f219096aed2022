"""Which run an input is for: an open run of its session, or the one that a rule starts."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from wakeline.errors import (
    RequestInvalidError,
    RunClosedError,
    SessionClosedError,
    SessionNotFoundError,
    SettingsInvalidError,
    WorkflowNotFoundError,
)
from wakeline.gateway.access import Grant
from wakeline.gateway.following import Followers
from wakeline.gateway.inputs.asked import Asked
from wakeline.gateway.log import Engine, NewSession, SessionState, matches
from wakeline.gateway.reaching import Connection, Namespaces
from wakeline.gateway.rules import Start
from wakeline.gateway.sessions import NamedWorkflow, Run, Runs, Starting

_SESSION: Final = "{session}"


class Rule(NamedTuple):
    """A rule by which an input starts its workflow.

    Attributes:
        name: Its name in the settings.
        start: The rule.
    """

    name: str
    start: Start

    @property
    def permission(self) -> str:
        """The name that a token must allow."""
        return f"$start.{self.name}"


class Target(msgspec.Struct, frozen=True):
    """The run that an input is for; its members are those of `Intent`.

    Attributes:
        epoch: The life of the session.
        workflow_id: The Workflow Id.
        namespace: Its namespace; empty for the gateway's main one.
        run: The run's name; empty if the run has to be found or started.
        run_id: Its latest Temporal run.
        starting: How the workflow is started if it has no open run.
    """

    epoch: str
    workflow_id: str
    namespace: str
    run: str = ""
    run_id: str = ""
    starting: Starting | None = None


class Targets:
    """Chooses the runs that inputs are for.

    Args:
        rules: The workflows that inputs start, by the names of their rules.
        engine: The log.
        runs: The record of each session's runs.
        namespaces: Temporal.
        followers: Find a session's workflow.

    Raises:
        SettingsInvalidError: A rule cannot be followed.
    """

    def __init__(
        self, rules: dict[str, Start], engine: Engine, runs: Runs, namespaces: Namespaces, followers: Followers
    ) -> None:
        self._rules = rules
        self._engine = engine
        self._runs = runs
        self._namespaces = namespaces
        self._followers = followers
        for name, rule in rules.items():
            _check_rule(name, rule)
            if rule.namespace is not None and rule.namespace not in namespaces:
                raise SettingsInvalidError(
                    f"expected a namespace of the settings in inputs.start.{name}, got {rule.namespace!r}"
                )

    def connection(self, namespace: str) -> Connection:
        """Return the connection to a namespace; an empty name is the main one's.

        Raises:
            WorkflowNotFoundError: This gateway follows no workflows there.
        """
        if namespace and namespace not in self._namespaces:
            raise WorkflowNotFoundError(f"expected a namespace that this gateway follows, got {namespace!r}")
        return self._namespaces[namespace] if namespace else self._namespaces.main

    def rule(self, session: str, asked: Asked, grant: Grant) -> Rule | None:
        """Check that a token allows an input; return the rule by which it starts its workflow.

        Returns:
            The rule that the input names; for an update that names neither a rule nor a run, the first rule of the session
            for updates that the token allows; otherwise None.

        Raises:
            NotAllowedError: The token does not allow the input, or not the rule.
            RequestInvalidError: There is no such rule for this session.
        """
        if asked.kind != "start":
            grant.check_input(session, asked.permission)
        if asked.kind == "start" or asked.start is not None:
            rule = self._named(session, asked.name if asked.kind == "start" else asked.start or "")
            grant.check_input(session, rule.permission)
            return rule
        if asked.kind != "update" or asked.run is not None:
            return None
        own = [rule for rule in self._of(session) if rule.start.update]
        return next((rule for rule in own if grant.may_input(session, rule.permission)), None)

    async def of(self, session: str, asked: Asked, rule: Rule | None) -> Target:
        """Return the run that an input is for.

        The session is created if there is none and the input starts its workflow.

        Raises:
            WakelineError: There is none, or it cannot receive the input.
        """
        if rule is None:
            return await self._running(session, await self._run(session, asked.run))
        how = rule.start
        workflow_id = NamedWorkflow(how.workflow_id.replace(_SESSION, session)).checked().workflow_id
        opened = [run for run in await self._workflows(session) if run.open] if asked.kind == "update" else []
        ours = [run for run in opened if run.workflow_id == workflow_id]
        if asked.start is None and opened and not ours:
            return await self._running(session, await self._run(session, None))
        args = msgspec.Raw(asked.arguments if asked.kind == "start" and asked.args else msgspec.json.encode(how.args))
        starting = Starting(
            workflow_type=how.workflow_type,
            task_queue=how.task_queue,
            args=args,
            id_reuse=how.id_reuse,
            id_conflict=how.id_conflict,
        )
        epoch = _epoch_of(await self._begun(session))
        if ours:
            return Target(epoch, workflow_id, ours[0].namespace, ours[0].run, ours[0].run_id, starting)
        main = self._namespaces.main.namespace
        namespace = "" if how.namespace in (None, main) else how.namespace or ""
        return Target(epoch, workflow_id, namespace, starting=starting)

    def _how_to_start(self, session: str) -> str | None:
        """Return how an input may start the workflow of a session; None if no rule does."""
        if not (own := self._of(session)):
            return None
        names, claims = ", ".join(rule.name for rule in own), ", ".join(rule.permission for rule in own)
        return (
            f"An input starts its workflow if it names a rule ({names}) as start, or the rule has update = true, and if "
            f"the token's claim wakeline.inputs names it: $start, or one of {claims}."
        )

    def _of(self, session: str) -> list[Rule]:
        """Return the rules for a session."""
        return [Rule(name, rule) for name, rule in self._rules.items() if matches(rule.sessions, session)]

    def _named(self, session: str, name: str) -> Rule:
        """Return a rule for a session by its name; the only one if none is named."""
        own = self._of(session)
        meant = [rule for rule in own if name in ("", rule.name)]
        if len(meant) == 1:
            return meant[0]
        if not meant:
            came = repr(name) if name else "none"
            raise RequestInvalidError(
                f"expected the name of a rule that starts the workflow of session {session!r}, got {came}",
                hint="Add a table [inputs.start.NAME] to the gateway's settings whose sessions match the session's name.",
            )
        raise RequestInvalidError(
            f"expected the name of a rule, because session {session!r} has {len(own)}: {', '.join(rule.name for rule in own)}",
            hint="Name the rule: as name with the kind start, as start with an update.",
        )

    async def _running(self, session: str, run: Run) -> Target:
        epoch = _epoch_of(await self._engine.found(session))
        self.connection(run.namespace)
        return Target(epoch, run.workflow_id, run.namespace, run.run, run.run_id)

    async def _begun(self, session: str) -> SessionState:
        """Return the state of a session, which is created if there is none."""
        return await self._engine.state(session) or (await self._engine.create_session(NewSession(session)))[0]

    async def _workflows(self, session: str) -> list[Run]:
        """Return the session's runs that are workflows: a standalone activity receives no inputs."""
        if await self._engine.state(session) is None:
            return []  # records may be left from an earlier life
        return [run for run in await self._runs.of(session) if not run.activity]

    async def _run(self, session: str, named: str | None) -> Run:
        """Return the run that an input is for: the named one, or the open one."""
        runs = await self._workflows(session)
        if not any(run.open for run in runs):
            await self._followers.watch(session)  # it may have been started since
            runs = await self._workflows(session)
        if not runs and await self._engine.state(session) is None:
            raise SessionNotFoundError(f"there is no session {session!r}", hint=self._how_to_start(session))
        if named is not None:
            known, runs = runs, [run for run in runs if named in run.run_ids]
            if not runs:
                run_ids = ", ".join(run.run_id for run in known if run.open) or "none"
                raise WorkflowNotFoundError(
                    f"expected the run id of a run of session {session!r}, got {named!r}",
                    hint=f"Leave run out for the open run, or name one; the run ids of open runs: {run_ids}.",
                )
        if not runs:
            raise WorkflowNotFoundError(f"expected a session with the run of a workflow, session {session!r} has none")
        opened = [run for run in runs if run.open]
        if not opened:
            raise RunClosedError(f"expected an open run of session {session!r}; the last one is {runs[-1].status}")
        own = [run for run in opened if run.workflow_id == session] or opened
        if len(own) > 1:
            raise RequestInvalidError(
                f"expected the name of a run, because session {session!r} has {len(own)} open ones",
                hint="Send the name of one of the session's runs as run.",
            )
        return own[0]


def _epoch_of(state: SessionState) -> str:
    """Return the epoch of a session that is not closed."""
    if state.closed:
        raise SessionClosedError(f"session {state.session!r} is closed")
    return state.epoch


def _check_rule(name: str, rule: Start) -> None:
    """Raise unless a rule can be followed."""
    if re.search(r"[{}]", rule.workflow_id.replace(_SESSION, "")):
        raise SettingsInvalidError(
            f"expected a workflow_id of text and {_SESSION} in inputs.start.{name}, got {rule.workflow_id!r}"
        )
    if wrong := [pattern for pattern in rule.sessions if "*" in pattern[:-1] or not pattern]:
        raise SettingsInvalidError(
            f"expected names of sessions, with * at the end only, in inputs.start.{name}, got {wrong[0]!r}"
        )
