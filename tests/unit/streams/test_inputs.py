"""Inputs that a workflow has handled: each once, in bounded memory."""

from __future__ import annotations

from wakeline.streams.inputs import HandledInputs


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
