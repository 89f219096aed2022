"""What the client lets through, without any connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.transports.scripted import EPOCH, frame, opening
from wakeline.client import StreamBrokenError
from wakeline.client.sse import Frame, FrameParser
from wakeline.client.view import View


def offsets(view: View, *frames: bytes) -> list[int]:
    """Those that get through."""
    found = [view.accept(frame) for frame in FrameParser().feed(b"".join(frames))]
    return [event.offset for event in found if event is not None]


@given(st.lists(st.text(max_size=20), max_size=8), st.lists(st.integers(0, 2000), max_size=20))
def test_frames_are_the_same_however_the_bytes_are_cut(values: list[str], cuts: list[int]) -> None:
    stream = opening(0) + b":\n\n" + b"".join(frame(n, value) for n, value in enumerate(values))
    parser, found, last = FrameParser(), list[Frame](), 0
    for cut in sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)}):
        found += parser.feed(stream[last:cut])
        last = cut
    assert found == FrameParser().feed(stream)
    assert [f.cursor for f in found] == [f"{EPOCH}-{n}" for n in range(len(values) + 1)]


def test_half_a_frame_and_frames_without_a_cursor_do_not_count() -> None:
    presence = b'event: presence\ndata: {"event":"join"}\n\n'
    assert [f.cursor for f in FrameParser().feed(presence + frame(0) + frame(1)[:-1])] == [f"{EPOCH}-1"]


def test_repeats_are_dropped() -> None:
    view = View("beginning", filtered=False)
    assert offsets(view, opening(0), frame(0), frame(0), frame(1), frame(0), opening(0), frame(1), frame(2)) == [
        0,
        1,
        2,
    ]
    assert view.position == f"{EPOCH}-3"


@given(st.lists(st.integers(0, 5), max_size=40), st.booleans())
def test_whatever_comes_only_what_is_next_gets_through(came: list[int], filtered: bool) -> None:
    view, through = View(f"{EPOCH}-0", filtered=filtered), []
    for offset in came:
        try:
            through += offsets(view, frame(offset))
        except StreamBrokenError:
            assert not filtered
    assert through == (sorted(set(through)) if filtered else list(range(len(through))))


def test_a_missing_event_is_told_unless_some_may_be_left_out() -> None:
    view = View("beginning", filtered=False)
    with pytest.raises(StreamBrokenError, match="expected offset 1, got 2"):
        offsets(view, opening(0), frame(0), frame(2))
    assert view.position == f"{EPOCH}-1"
    assert offsets(View("beginning", filtered=True), opening(0), frame(3), frame(9)) == [3, 9]


def test_a_gap_that_says_so_is_an_event() -> None:
    view = View(f"{EPOCH}-2", filtered=False)
    gap = {"missed": 5, "first_available": 7, "source": "retention"}
    assert offsets(view, opening(2), frame(6, gap, topic="$gap"), frame(7)) == [6, 7]


def test_a_cursor_alone_moves_on_where_events_are_left_out_and_nowhere_else() -> None:
    view = View("beginning", filtered=True)
    assert offsets(view, opening(0), frame(1), opening(8)) == [1]
    assert view.position == f"{EPOCH}-8"
    with pytest.raises(StreamBrokenError, match="expected offset 1, got 8"):
        offsets(View("beginning", filtered=False), opening(0), frame(0), opening(8))


@pytest.mark.parametrize(
    "bad",
    [
        frame(0, cursor="bbbbbbbbbb-1"),
        frame(0, cursor=f"{EPOCH}-2"),
        frame(0, cursor="17"),
        f"id: {EPOCH}-1\ndata: <html>\n\n".encode(),
        f'id: {EPOCH}-1\ndata: {{"offset": 0}}\n\n'.encode(),
        b"id: \xff\xfe\n\n",
        frame(0, "TEXT").replace(b"TEXT", rb"\ud800"),
        frame(0, "TEXT").replace(b'"TEXT"', b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=[
        "another epoch",
        "cursor of another event",
        "no cursor",
        "no JSON",
        "no event",
        "no ASCII",
        "half a character",
        "too deep",
    ],
)
def test_what_cannot_be_the_session_is_refused(bad: bytes) -> None:
    view = View("beginning", filtered=True)
    with pytest.raises(StreamBrokenError):
        offsets(view, opening(0), bad)
    assert view.position == f"{EPOCH}-0"
