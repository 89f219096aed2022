"""The refusals of inputs that are logged, of many sessions."""

from __future__ import annotations

from structlog.testing import capture_logs

from wakeline.gateway.inputs.refusals import Refusals


class Name(str):
    """A session's name that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __ne__(self, other: object) -> bool:
        Name.compared += 1
        return str.__ne__(self, other)


def test_a_refusal_is_logged_again_once_an_input_of_the_session_has_an_outcome() -> None:
    refusals = Refusals()
    with capture_logs() as logs:
        for _ in range(2):
            refusals.log("s", "1", "PERMISSION_DENIED")
            refusals.log("s", "1", "UNAUTHENTICATED")
            refusals.log("t", "1", "PERMISSION_DENIED")
        refusals.forget("s")
        for session in ("s", "t"):
            refusals.log(session, "2", "PERMISSION_DENIED")
    assert [(log["session"], log["status"]) for log in logs] == [
        ("s", "PERMISSION_DENIED"),
        ("s", "UNAUTHENTICATED"),
        ("t", "PERMISSION_DENIED"),
        ("s", "PERMISSION_DENIED"),
    ]


def test_a_refusal_is_forgotten_without_a_look_at_every_session() -> None:
    refusals = Refusals()
    with capture_logs():
        for number in range(1000):
            refusals.log(Name(number), "1", "PERMISSION_DENIED")
    refusals.forget("0")
    assert Name.compared < 10
