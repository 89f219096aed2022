"""The compact form of a session, against a model that knows nothing of how it is made.

The model looks at the whole log anew at every offset, and at what JSON says. The fold must say the same; and it must say it
in the same bytes whether it has seen every event, only those that count, the compact form and what followed it, or stretches
that were folded apart from each other.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messages import after
from tests.soak import times
from wakeline.compact import Fold
from wakeline.compact.plain import PlainRanges
from wakeline.events import ATTEMPT_SUPERSEDED, Event, MessagePiece, compose
from wakeline.gateway.delivery.compact import blocks


class Step(NamedTuple):
    """An event on its way into a log; `op` is that of a message, or `key`, `plain`, or `supersede`, `resume`."""

    op: str
    publisher: int
    topic: str
    name: str
    data: Any
    complete: bool


_names = st.sampled_from("abc")
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("xy\u00e9\U0001f600", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)
_patches = st.recursive(
    st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)
_ops = st.sampled_from(
    ["text", "text", "list", "json-merge", "json-merge", "set", "none", "key", "key", "plain", "supersede", "resume"]
)


@st.composite
def _steps(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 24))):
        op = draw(_ops)
        data = draw(_patches if op == "json-merge" else st.text("ab\u20ac", max_size=3) if op == "text" else _values)
        name, topic = draw(st.sampled_from(("m", "n"))), draw(st.sampled_from(("t", "u")))
        steps.append(Step(op, draw(st.integers(0, 2)), topic, name, data, draw(st.integers(0, 9)) == 0))
    return steps


def _log(steps: list[Step]) -> tuple[list[Event], list[dict[str, Any]], list[set[int]]]:
    """The log, its events as JSON, and at each offset what is superseded by then."""
    events: list[Event] = []
    objects: list[dict[str, Any]] = []
    attempts = [1, 1, 1]
    counting: list[set[int]] = [set(), set(), set()]
    gone: set[int] = set()
    states = [set(gone)]
    for step in steps:
        who = step.publisher
        names: dict[str, Any] = {"run": f"r{who}", "activity": f"a{who}", "attempt": attempts[who]} if who else {}
        if step.op in ("supersede", "resume"):
            attempts[who] += 1
            if step.op == "resume" or not counting[who] or not who:
                continue
            gone |= counting[who]
            data: Any = {"activity": f"a{who}", "attempt": attempts[who], "offsets": _ranges(counting[who])}
            counting[who] = set()
            names["attempt"] = attempts[who]
            new = compose(ATTEMPT_SUPERSEDED, json.dumps(data).encode(), time=_time(events), **names)
        else:
            piece = MessagePiece(step.name, step.op, step.complete) if step.op not in ("key", "plain") else None  # type: ignore[arg-type] # one of them
            key = step.name if step.op == "key" else None
            data = json.dumps(step.data, ensure_ascii=False).encode()
            new = compose(step.topic, data, time=_time(events), key=key, message=piece, **names)
            counting[who].add(len(events))
        events.append(Event(len(events), new.topic, new.body))
        objects.append(json.loads(events[-1].json()))
        states.append(set(gone))
    return events, objects, states


def _time(events: list[Event]) -> str:
    return f"2026-11-21T05:14:43.{len(events):03}Z"


def _ranges(offsets: set[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for offset in sorted(offsets):
        if ranges and ranges[-1][1] == offset - 1:
            ranges[-1][1] = offset
        else:
            ranges.append([offset, offset])
    return ranges


def _model(objects: list[dict[str, Any]], gone: set[int]) -> list[dict[str, Any]]:
    """What a reader of the log holds, without `compact`, which tells where it came from."""
    messages: dict[tuple[str, str], dict[str, Any]] = {}
    keyed: dict[tuple[str, str], dict[str, Any]] = {}
    plain: list[dict[str, Any]] = []
    for event in objects:
        if event["offset"] in gone or event["topic"] == ATTEMPT_SUPERSEDED:
            continue
        if "message" in event:
            name = (event["topic"], event["message"]["id"])
            before = messages.get(name, {"data": None, "message": {}})
            piece = {"id": name[1], "op": "set"}
            if event["message"].get("complete") or before["message"].get("complete"):
                piece["complete"] = True
            messages[name] = {
                **event,
                "data": after(before["data"], event["message"]["op"], event["data"]),
                "message": piece,
            }
        elif "key" in event:
            keyed[event["topic"], event["key"]] = event
        else:
            plain.append(event)
    return sorted([*messages.values(), *keyed.values(), *plain], key=lambda event: int(event["offset"]))


def _bytes(fold: Fold) -> list[bytes]:
    return [event.json() for event in fold.events()]


def _folded(events: list[Event], fold: Fold | None = None) -> Fold:
    fold = fold or Fold()
    for event in events:
        fold.add(event)
    return fold


@settings(max_examples=times(25, 400), deadline=None)
@given(_steps(), st.data())
def test_the_fold_is_what_the_log_says_at_every_offset(steps: list[Step], draws: st.DataObject) -> None:
    events, objects, states = _log(steps)
    whole = Fold()
    followed: list[Fold] = []
    cut = draws.draw(st.integers(0, len(events)))
    for at in range(len(events) + 1):
        if at:
            whole.add(events[at - 1])
            for reader in followed:
                reader.add(events[at - 1])
        told = [json.loads(event) for event in _bytes(whole)]
        assert [{k: v for k, v in event.items() if k != "compact"} for event in told] == _model(
            objects[:at], states[at]
        )
        _check_compaction(told)
        counts = [e for e in events[:at] if e.offset not in states[at] and e.topic != ATTEMPT_SUPERSEDED]
        assert _bytes(_folded(counts)) == _bytes(whole)
        for reader in followed:
            assert _bytes(reader) == _bytes(whole)
        followed.append(_folded(whole.events()))
        assert _bytes(followed[-1]) == _bytes(whole)
        if cut <= at:
            stretches = _folded(events[:cut])
            stretches.extend(_folded(events[cut:at], Fold(cut)).copy())
            assert _bytes(stretches) == _bytes(whole)


def _read(events: list[Event]) -> list[dict[str, Any]]:
    """What a reader of a compact form holds who knows nothing of `compact`: of values that come in several events, too."""
    messages: dict[tuple[str, str], dict[str, Any]] = {}
    keyed: dict[tuple[str, str], dict[str, Any]] = {}
    plain: list[dict[str, Any]] = []
    for event in (json.loads(event.json()) for event in events):
        event.pop("compact", None)
        if "message" in event:
            name = (event["topic"], event["message"]["id"])
            assert name in messages or event["message"]["op"] == "set"
            before = messages.get(name, {"data": None, "message": {}})
            value = after(before["data"], event["message"]["op"], event["data"])
            complete = before["message"].get("complete") or event["message"].get("complete")
            piece = {"id": name[1], "op": "set", **({"complete": True} if complete else {})}
            messages[name] = {**event, "data": value, "message": piece}
        elif "key" in event:
            keyed[event["topic"], event["key"]] = event
        else:
            plain.append(event)
    return sorted([*messages.values(), *keyed.values(), *plain], key=lambda event: int(event["offset"]))


@settings(max_examples=times(25, 400), deadline=None)
@given(_steps(), st.sampled_from((1, 3, 8, 20, 60, 300, 700, 1500)), st.data())
def test_a_value_over_the_bound_comes_in_several_events(steps: list[Step], bound: int, draws: st.DataObject) -> None:
    log, objects, states = _log(steps)
    whole = Fold(bound=bound)
    followed: list[Fold] = []
    cut, *joining = (draws.draw(st.integers(0, len(log))) for _ in range(4))
    for at in range(len(log) + 1):
        for fold in (whole, *followed) if at else ():
            fold.add(log[at - 1])
        told, expected = whole.events(), _model(objects[:at], states[at])
        assert _read(told) == expected
        assert len({event.offset for event in told}) == len(told)
        _check_stretches(told, log, bound)
        assert _read(blocks.decode(blocks.encode(whole)).events()) == expected
        if at in joining:
            followed.append(_folded(told, Fold(bound=bound)))
        if cut <= at:
            stretches = _folded(log[:cut], Fold(bound=bound))
            stretches.extend(_folded(log[cut:at], Fold(cut, bound=bound)).copy())
            assert _read(stretches.events()) == expected
    for reader in followed:
        assert _read(reader.events()) == expected
        reader.supersede([(0, len(log))])
        assert reader.events() == []


def _check_stretches(told: list[Event], log: list[Event], bound: int) -> None:
    """Every event is within the bound, or is no larger than one of those it stands for; their stretches follow each other."""
    ends: dict[tuple[str, str], int] = {}
    for event in told:
        fields = msgspec.json.decode(event.json(), type=dict[str, msgspec.Raw])
        stands_for = json.loads(bytes(fields.get("compact", b"null")))
        if stands_for is None:
            continue
        first, last = stands_for["first"], stands_for["last"]
        assert last == event.offset
        largest = max(len(one.body) for one in log[first : last + 1])
        if "parts" in stands_for:
            assert len(event.body) <= max(bound, largest) + 400
        else:
            assert len(bytes(fields["data"])) <= max(bound, largest)
        if "message" in fields:
            name = (event.topic, json.loads(bytes(fields["message"]))["id"])
            assert first > ends.get(name, -1)
            ends[name] = last


_merges = st.tuples(st.just("json-merge"), st.dictionaries(_names, _patches, min_size=1, max_size=3))
_pieces = (
    _merges
    | st.tuples(st.sampled_from(("list", "set", "json-merge")), _values)
    | st.tuples(st.just("text"), st.text("ab\u20ac", max_size=3))
)


@settings(max_examples=times(15, 500), deadline=None)
@given(
    st.lists(_merges, min_size=8, max_size=30) | st.lists(_pieces, min_size=1, max_size=30),
    st.integers(10, 120),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_one_message_is_what_its_pieces_say_however_it_is_cut(
    pieces: list[tuple[str, Any]], bound: int, cut: int, join: int
) -> None:
    log = [_piece(n, op, json.dumps(data, ensure_ascii=False).encode()) for n, (op, data) in enumerate(pieces)]
    value: Any = None
    for op, data in pieces:
        value = after(value, op, data)
    whole, reader = _folded(log, Fold(bound=bound)), _folded(log[:join], Fold(bound=bound))
    apart = _folded(log[:cut], Fold(bound=bound))
    apart.extend(_folded(log[cut:], Fold(min(cut, len(log)), bound=bound)))
    joined = _folded([*reader.events(), *log[join:]], Fold(bound=bound))
    for fold in (whole, apart, joined, _folded(whole.events())):
        (found,) = _read(fold.events())
        assert found["data"] == value
        assert json.loads(fold.messages["t", "m"].value()) == value


def test_a_text_that_outgrows_the_bound_goes_on_as_text() -> None:
    fold = _folded([_piece(n, "text", b'"%d_"' % n) for n in range(10)], Fold(bound=20))
    found = [json.loads(event.json()) for event in fold.events()]
    assert [(event["message"]["op"], event["data"]) for event in found] == [
        ("set", "0_1_2_3_4_5_6_7_"),
        ("text", "8_9_"),
    ]
    assert [event["compact"] for event in found] == [
        {"first": 0, "last": 7, "events": 8},
        {"first": 8, "last": 9, "events": 2},
    ]
    fold.add(_piece(10, "set", b'"new"'))
    (event,) = fold.events()
    assert b'"data":"new"' in event.body
    assert b'"compact":{"first":0,"last":10,"events":11}' in event.body


def test_items_that_outgrow_the_bound_go_on_as_several_operations() -> None:
    fold = _folded([_piece(n, "list", b'"item-%02d"' % n) for n in range(10)], Fold(bound=150))
    first, second = (json.loads(event.json()) for event in fold.events())
    assert first["message"]["op"] == "set"
    assert second["message"]["op"] == "ops"
    assert second["data"] == [["list", f"item-{n:02}"] for n in range(len(first["data"]), 10)]


def test_an_object_that_is_changed_again_and_again_does_not_grow() -> None:
    patches = [b'{"name-%02d":"%s"}' % (n % 20, b"value-%05d" % n) for n in range(5000)]
    fold = _folded([_piece(n, "json-merge", patch) for n, patch in enumerate(patches)], Fold(bound=200))
    value: Any = None
    for event in fold.events():
        found = json.loads(event.json())
        value = after(value, found["message"]["op"], found["data"])
    assert value == {f"name-{n % 20:02}": f"value-{n:05}" for n in range(4980, 5000)}
    assert sum(len(event.body) for event in fold.events()) < 4000


def test_states_that_are_too_large_together_come_one_after_the_other() -> None:
    def state(offset: int, attempt: int) -> Event:
        body = b'"topic":"t","data":"%b","time":"x","activity":"a","attempt":%d,"key":"k"}'
        return Event(offset, "t", body % (b"x" * 300, attempt))

    log = [state(n, n) for n in range(1, 4)]
    assert _folded(log, Fold(bound=500)).events() == log
    (one,) = _folded(log).events()
    assert one.offset == 3
    reader = _folded(_folded(log, Fold(bound=500)).events())
    reader.supersede([(3, 3)])
    assert [event.offset for event in reader.events()] == [2]


def _check_compaction(told: list[dict[str, Any]]) -> None:
    for event in told:
        stands_for = event.get("compact")
        if stands_for is None:
            continue
        assert stands_for["last"] == event["offset"]
        assert stands_for["first"] <= stands_for["last"]
        parts = stands_for.get("parts", [])
        assert not parts or sum(part["events"] for part in parts) == stands_for["events"]
        if parts and "message" in event:
            value = None
            for op, data in (op for part in parts for op in part["ops"]):
                value = after(value, op, data)
            assert value == event["data"]


@settings(max_examples=times(25, 200), deadline=None)
@given(_steps())
def test_where_plain_events_stand_is_told_as_well_as_by_keeping_them(steps: list[Step]) -> None:
    events, _, _ = _log(steps)
    kept, counted = Fold(), Fold(plain=PlainRanges())
    for event in events:
        kept.add(event)
        counted.add(event)
        assert isinstance(counted.plain, PlainRanges)
        offsets = [offset for first, last in counted.plain.ranges for offset in range(first, last + 1)]
        assert offsets == [event.offset for event in kept.plain.events()]


def _piece(offset: int, op: Any, data: bytes, **who: Any) -> Event:
    new = compose("t", data, time="2026-11-21T05:14:43.123Z", message=MessagePiece("m", op), **who)
    return Event(offset, new.topic, new.body)


def test_what_cannot_be_held_as_a_number_goes_through_as_it_came() -> None:
    fold = _folded(
        [_piece(0, "set", b'{"a":1e999}'), _piece(1, "json-merge", b'{"b":123456789012345678901234567890.10}')]
    )
    (event,) = fold.events()
    assert b'"data":{"a":1e999,"b":123456789012345678901234567890.10}' in event.body


def test_data_that_is_not_what_its_op_takes_is_the_value() -> None:
    fold = _folded([_piece(0, "text", b'"a"'), _piece(1, "text", b"17"), _piece(2, "list", b"1")])
    (event,) = fold.events()
    assert b'"data":[1]' in event.body


def test_deeper_than_data_may_be_objects_are_replaced_and_not_merged() -> None:
    """No gateway of today stores such data; one of before may have."""

    def older(offset: int, inner: bytes) -> Event:
        data = b'{"a":' * 200 + inner + b"}" * 200
        message = b'"message":{"id":"m","op":"json-merge"}'
        return Event(offset, "t", b'"topic":"t","data":%b,"time":"x",%b}' % (data, message))

    (event,) = _folded([older(0, b'{"x":1}'), older(1, b'{"y":2}')]).events()
    assert b'{"a":{"y":2}}' in event.body
    assert b'"x":1' not in event.body


def test_an_event_that_is_no_json_stands_for_itself() -> None:
    odd = Event(0, "t", b'"topic":"t","data":[,"message":{"id":"m"}}')
    assert _folded([odd]).events() == [odd]


def test_a_payload_stands_for_itself_in_a_message_and_may_have_a_key() -> None:
    payload = b'"topic":"t","payload":{"data":"eA=="},"time":"x","message":{"id":"m","op":"text"}}'
    state = b'"topic":"t","payload":{"data":"eA=="},"time":"x","key":"k"}'
    fold = _folded([Event(0, "t", payload), Event(1, "t", state), Event(2, "t", state)])
    assert [event.json() for event in fold.events()] == [
        b'{"offset":0,' + payload,
        b'{"offset":2,' + state[:-1] + b',"compact":{"first":1,"last":2,"events":2}}',
    ]


def test_only_the_topics_that_are_asked_for() -> None:
    fold = _folded([_piece(0, "text", b'"a"'), Event(1, "u", b'"topic":"u","data":1,"time":"x"}')])
    assert [event.topic for event in fold.events({"u"})] == ["u"]
