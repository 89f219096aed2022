from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import TIME
from wakeline.errors import BodyInvalidError, CursorAheadError, CursorInvalidError, EpochChangedError
from wakeline.events import MAX_DEPTH, Cursor, Event, compose

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    data=JSON.filter(lambda v: "\ud800" not in json.dumps(v)),
    topic=st.text(min_size=1).filter(str.isprintable),
    indent=st.sampled_from([None, 2]),
    run=st.none() | st.text(alphabet='abc"\\é'),
)
def test_an_event_is_one_line_of_json_with_the_data_as_it_came(
    data: object, topic: str, indent: int | None, run: str | None
) -> None:
    text = json.dumps(data, indent=indent, ensure_ascii=True)
    event = compose(topic, text.encode(), time="2026-11-21T05:14:43.123Z", run=run)
    raw = Event(7, event.topic, event.body).json()
    assert b"\n" not in raw
    assert b"\r" not in raw
    decoded = json.loads(raw)
    assert decoded["offset"] == 7
    assert decoded["topic"] == topic
    assert json.dumps(decoded["data"]) == json.dumps(data)
    assert decoded.get("run") == run


@given(offset=st.integers(0, 10**18 - 1))
def test_a_cursor_reads_back(offset: int) -> None:
    cursor = Cursor("k3v7x2abqm".replace("9", "7"), offset)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text())
def test_any_other_text_is_refused_or_is_a_cursor(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except CursorInvalidError:
        return
    assert str(cursor) == text


def test_a_cursor_is_of_one_epoch_and_not_past_the_end() -> None:
    cursor = Cursor("aaaaaaaaaa", 3)
    assert cursor.offset_in("aaaaaaaaaa", 3) == 3
    with pytest.raises(CursorAheadError):
        cursor.offset_in("aaaaaaaaaa", 2)
    with pytest.raises(EpochChangedError):
        cursor.offset_in("bbbbbbbbbb", 9)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('{"}":', "}")])
@pytest.mark.parametrize("inner", ["0", '"' + "[" * 1000 + '\\"{"'])
def test_data_nests_as_deep_as_every_reader_can_follow(opening: str, closing: str, inner: str) -> None:
    compose("t", (opening * MAX_DEPTH + inner + closing * MAX_DEPTH).encode(), time=TIME)
    with pytest.raises(BodyInvalidError, match="128 levels"):
        compose("t", (opening * (MAX_DEPTH + 1) + inner + closing * (MAX_DEPTH + 1)).encode(), time=TIME)
    compose("t", b"[" + b"[],{}," * 1000 + b"0]", time=TIME)
