"""Half a surrogate pair: joined with its other half, or U+FFFD; in text and in JSON alike."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wakeline import text as text_module
from wakeline.text import read_whole, split_half, whole, whole_json

PIECES = st.lists(st.sampled_from(["\ud83d", "\ude00", "a", "\\", "\n", '"', "😀", "ud83d", "\ufeff"]), max_size=12)


@given(PIECES)
def test_json_and_text_are_mended_alike(pieces: list[str]) -> None:
    text = "".join(pieces)
    mended = whole_json(json.dumps(text).encode())
    assert msgspec.json.decode(mended, type=str) == whole(text)


@given(PIECES, st.integers(8, 20))
def test_json_is_mended_alike_in_pieces_of_any_size(pieces: list[str], size: int) -> None:
    body = json.dumps("".join(pieces)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "_PIECE_BYTES", size)
        mended = whole_json(body)
    assert mended == whole_json(body)


@pytest.mark.parametrize(
    ("text", "mended"),
    [("a\ud83d\ude00b", "a😀b"), ("a\ud83d b", "a\ufffd b"), ("\ude00\ud83d", "\ufffd\ufffd"), ("plain", "plain")],
)
def test_a_lone_half_is_replaced(text: str, mended: str) -> None:
    assert whole(text) == mended


@pytest.mark.parametrize("data", [rb'"\ud83d\ude00"', rb'"\\ud83d"', rb'"plain"', rb'"\uD83D\uDE00"'])
def test_json_without_halves_is_left_byte_for_byte(data: bytes) -> None:
    assert whole_json(data) is data


def test_only_the_first_half_of_a_pair_is_held_back() -> None:
    assert split_half("a\ud83d") == ("a", "\ud83d")
    assert split_half("a\ude00") == ("a\ude00", "")
    assert split_half("") == ("", "")


def test_json_that_is_bad_otherwise_stays_so() -> None:
    assert read_whole(msgspec.json.Decoder(str).decode, rb'"\ud83d"') == "\ufffd"
    with pytest.raises(msgspec.DecodeError):
        read_whole(msgspec.json.decode, rb'["\ud83d", nonsense]')
    with pytest.raises(msgspec.DecodeError):
        read_whole(msgspec.json.decode, b"nonsense")
