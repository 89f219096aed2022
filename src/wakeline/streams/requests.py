"""Requests for input in a workflow: asks people through its stream, and waits for answers.

The request is an item of the stream, on the topic `wakeline.request`. The gateway that follows the workflow opens the request in
its session, and signals the outcome to the workflow. The stream may be Wakeline's or that of `temporalio.contrib`.
"""

# No `from __future__ import annotations` here: see `wire.py`.

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from wakeline.durations import seconds_of

REQUEST_TOPIC = "wakeline.request"
"""The topic of a stream on which a workflow asks."""

ANSWER_SIGNAL = "wakeline_answer"
"""The signal by which a workflow receives the outcome."""

OUTCOME_FORGOTTEN = "OutcomeForgotten"
"""The type of the error for a request whose outcome `ask` has returned before, and `carry` has dropped since."""

# A run's input must stay under the server's 2 MB, of which the stream's state may take 1.5 MB.
MAX_CARRIED_BYTES = 256_000
MAX_CARRIED_REQUESTS = 1000


class _Topic(Protocol):
    def publish(self, value: Any) -> None:
        """Append a value to the topic."""


class _Stream(Protocol):
    def topic(self, name: str) -> _Topic:
        """Return a handle to publish to a topic."""
        ...


@dataclass
class RequestOutcome:
    """How a request for input was closed.

    Attributes:
        request: The request's id.
        status: `resolved` by an answer, `cancelled`, or `expired`.
        payload: The answer.
        by: The user who closed it; None if nobody did, or no token is required.
        device: The device that the answer came from.
        answers: The people who gave the answer, each as `{"by", "device"?}`, if the request needed several.
        failure: Why the gateway has refused the request, which `WorkflowRequests.ask` raises: `{"message", "type"}`.
    """

    request: str
    status: Literal["resolved", "cancelled", "expired", "refused"]
    payload: Any = None
    by: str | None = None
    device: str | None = None
    answers: list[dict[str, str]] | None = None
    failure: dict[str, str] | None = None


@dataclass
class RequestsState:
    """The requests of a workflow, to carry over continue-as-new.

    Attributes:
        asked: The ids of the requests that were asked.
        outcomes: The outcomes that have arrived, by id.
        returned: The ids of the outcomes that `WorkflowRequests.ask` has returned, oldest first; None in a state that an
            earlier version has carried.
    """

    asked: list[str] = field(default_factory=list)
    outcomes: dict[str, RequestOutcome] = field(default_factory=dict)
    returned: list[str] | None = None


class WorkflowRequests:
    """Asks people for input.

    Construct one in `@workflow.init`, after the stream:

        self.stream = WorkflowStream()
        self.requests = WorkflowRequests(self.stream)

        outcome = await self.requests.ask("approval", id="pay-1", choices=["approve", "reject"])

    Args:
        stream: The workflow's stream.
        carried: The state that the run before has passed on at continue-as-new.
    """

    def __init__(self, stream: _Stream, carried: RequestsState | None = None) -> None:
        self._topic = stream.topic(REQUEST_TOPIC)
        self._state = carried or RequestsState()
        if self._state.returned is None:  # an earlier version did not record which ones `ask` has returned
            self._state.returned = list(self._state.outcomes)
        self._returned = self._state.returned
        workflow.set_signal_handler(ANSWER_SIGNAL, self._on_answer)

    async def ask(
        self,
        reason: str,
        *,
        id: str | None = None,
        kind: Literal["question", "tool"] = "question",
        message: str | None = None,
        choices: Sequence[str] | None = None,
        response_schema: Mapping[str, Any] | None = None,
        expires: timedelta | None = None,
        audience: str | Sequence[str] | None = None,
        digest: str | None = None,
        tool_call_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        needs: int = 1,
    ) -> RequestOutcome:
        """Ask, and wait for the outcome; with an earlier request's id, for the outcome of that one.

        Args:
            reason: Why, such as `approval`; a token names the reasons that it may answer.
            id: The request's key, unique in the session; by default a new one.
            kind: `tool`: one device at a time claims the request and answers with the tool's value.
            message: The question, for people.
            choices: The possible answers.
            response_schema: In place of `choices`, the JSON Schema of an answer.
            expires: How long it can be answered; for ever by default.
            audience: The users, and roles as `role:NAME`, who may answer; all by default.
            digest: Names what the request is about; an answer has to repeat it.
            tool_call_id: The tool call that it belongs to.
            metadata: Further data for the devices.
            needs: The number of people who have to give the same answer. Default: 1.

        Raises:
            ApplicationError: The gateway has refused the request; its type is the error's code, such as `schema_invalid`,
                or `request_conflict` for the id of another request of the session. Or the outcome was returned before, and
                `carry` has dropped it since; its type is `OutcomeForgotten`.
        """
        id = str(workflow.uuid4()) if id is None else id
        self._check_kept(id)
        if id not in self._state.asked:
            asked = {
                "id": id,
                "reason": reason,
                "kind": kind,
                "message": message,
                "choices": choices if choices is None else list(choices),
                "response_schema": response_schema,
                "expires_in": None if expires is None else seconds_of(expires, "expires"),
                "audience": [audience] if isinstance(audience, str) else audience,
                "digest": digest,
                "tool_call_id": tool_call_id,
                "metadata": metadata,
                "needs": needs,
            }
            self._topic.publish({name: value for name, value in asked.items() if value is not None})
            self._state.asked.append(id)
        return await self._outcome(id)

    def cancel(self, id: str) -> None:
        """Cancel a request; its outcome shows whether it was answered before."""
        self._topic.publish({"cancel": id})

    def carry(self) -> RequestsState:
        """Return the state for the next run, small enough for a run's input.

        Outcomes that `ask` has not returned yet are all carried. Of the others, the newest that fit into 256 KB are
        carried, and the newest 1,000 ids. Do not ask with an older id again: such an `ask` never returns, because the
        gateway remembers the request's answer and does not send it a second time.
        """
        state = self._state
        # In place: an answer that arrives between this call and the end of the run belongs to the state, too.
        for id in self._returned[:-MAX_CARRIED_REQUESTS]:
            state.outcomes.pop(id, None)
            if id in state.asked:
                state.asked.remove(id)
        del self._returned[:-MAX_CARRIED_REQUESTS]
        left = MAX_CARRIED_BYTES - sum(len(json.dumps(id)) for id in (*state.asked, *self._returned))
        sizes = {id: len(json.dumps([id, asdict(outcome)], default=str)) for id, outcome in state.outcomes.items()}
        excess = sum(sizes.values()) - left
        for id in self._returned:
            if excess <= 0:
                break
            if state.outcomes.pop(id, None) is not None:
                excess -= sizes[id]
        return state

    def _check_kept(self, id: str) -> None:
        if id in self._returned and id not in self._state.outcomes:
            raise _forgotten(id)

    async def _outcome(self, id: str) -> RequestOutcome:
        await workflow.wait_condition(lambda: id in self._state.outcomes)
        outcome = self._state.outcomes.get(id)
        if outcome is None:  # another `ask` with this id has returned it, and `carry` has dropped it since
            raise _forgotten(id)
        if id not in self._returned:
            self._returned.append(id)
        if outcome.failure is not None:
            raise ApplicationError(outcome.failure["message"], type=outcome.failure["type"], non_retryable=True)
        return outcome

    def _on_answer(self, outcome: RequestOutcome) -> None:
        self._state.outcomes.setdefault(outcome.request, outcome)


def _forgotten(id: str) -> ApplicationError:
    return ApplicationError(
        f"expected a request whose outcome is still carried, that of {id!r} was dropped at continue-as-new",
        type=OUTCOME_FORGOTTEN,
        non_retryable=True,
    )
