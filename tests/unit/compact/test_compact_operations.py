"""What the events of a message do, put together in every order: the value is what they do one after the other."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messages import after
from tests.soak import times
from wakeline.compact.operations import Change, from_wire

Op = tuple[str, Any]

_names = st.sampled_from("ab")
_trees = st.recursive(
    st.none() | st.integers(0, 2),
    lambda inner: st.dictionaries(_names, inner, max_size=2) | st.lists(st.integers(0, 2), max_size=1),
    max_leaves=4,
)
_patches = st.dictionaries(_names, _trees, max_size=2)
_one = (
    st.tuples(st.just("json-merge"), _patches)
    | st.tuples(st.just("json-merge"), _patches | _trees)
    | st.tuples(st.just("text"), st.sampled_from(("", "x", "yz")))
    | st.tuples(st.sampled_from(("list", "set")), _trees)
    | st.tuples(st.just("none"), st.none())
)
_merges = st.lists(st.tuples(st.just("json-merge"), _patches), min_size=2, max_size=6)
_lists = _merges | st.lists(_one, max_size=7)


def change(ops: list[Op]) -> Change:
    made = Change()
    for op, data in ops:
        made.apply(op, json.dumps(data).encode())
    return made


def wire(made: Change) -> list[tuple[str, bytes]]:
    return [(op, bytes(data)) for op, data in made.wire()]


@settings(max_examples=times(50, 1000), deadline=None)
@given(_trees, _lists, st.integers(0, 7), st.integers(0, 7))
def test_however_they_are_put_together_they_do_the_same(before: Any, ops: list[Op], one: int, other: int) -> None:
    expected = before
    for op, data in ops:
        expected = after(expected, op, data)
    low, high = sorted((min(one, len(ops)), min(other, len(ops))))
    first, middle, last = ops[:low], ops[low:high], ops[high:]
    whole = change(ops)
    left = change(first)
    left.then(change(middle))
    left.then(change(last))
    inner = change(middle)
    inner.then(change(last))
    right = change(first)
    right.then(inner)
    for made in (whole, left, right, from_wire(whole.wire()), whole.copy()):
        value = change([("set", before)])
        value.then(made)
        assert json.loads(value.settled().value()) == expected
        assert wire(made) == wire(whole)
    told = before
    for op, data in whole.wire():
        told = after(told, op, json.loads(bytes(data)))
    assert told == expected, "what is written does the same for who knows only the operations"


@settings(max_examples=times(30, 300), deadline=None)
@given(_lists)
def test_a_message_that_begins_has_its_value(ops: list[Op]) -> None:
    expected: Any = None
    for op, data in ops:
        expected = after(expected, op, data)
    made = change(ops)
    before = wire(made)
    assert json.loads(made.settled().value()) == expected
    assert wire(made) == before, "looking at it changes nothing"


def test_a_text_that_grows_by_many_pieces_is_whole() -> None:
    pieces = [f"{number} " for number in range(5000)]
    made = change([("text", piece) for piece in pieces])
    copied = made.copy()
    made.apply("text", b'"!"')
    assert json.loads(made.settled().value()) == "".join(pieces) + "!"
    assert json.loads(copied.settled().value()) == "".join(pieces)
