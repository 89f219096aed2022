"""Inputs that a workflow has handled: each once, in bounded memory."""

from __future__ import annotations

from wakeline.streams.inputs import HandledInputs, handling, input_key


def test_a_key_is_new_once_also_after_it_was_carried() -> None:
    first = HandledInputs()
    assert [first.once(key) for key in ("a", "b", "a")] == [True, True, False]
    second = HandledInputs(first.carry())
    assert [second.once(key) for key in ("b", "c", "c")] == [False, True, False]
    assert second.carry() == ["a", "b", "c"]


def test_the_oldest_keys_are_forgotten_first() -> None:
    inputs = HandledInputs(["a", "b"], most=3)
    assert [inputs.once(key) for key in ("c", "d")] == [True, True]
    assert inputs.carry() == ["b", "c", "d"]
    assert inputs.once("a")


def test_the_key_of_the_running_handler_is_that_of_its_own_input() -> None:
    """A client has used it again after its outcome was forgotten: that is another input."""
    inputs = HandledInputs()
    handled: list[bool] = []
    for life in ("1", "1", "2", "2"):
        with handling("pay", life):
            handled.append(inputs.once(input_key()))
    assert handled == [True, False, True, False]
    with handling("other", "3"):
        assert not inputs.once("pay"), "a key of its own, which the handler was given otherwise"
