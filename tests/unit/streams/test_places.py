"""Readers by update know from the history and from refusals when there is a place to wait."""

from __future__ import annotations

from temporalio.service import RPCError, RPCStatusCode

from wakeline.streams.places import ALLOWED, Places


def refusal(text: str) -> RPCError:
    return RPCError(text, RPCStatusCode.RESOURCE_EXHAUSTED, b"")


def test_there_is_a_place_until_as_many_wait_as_a_server_allows() -> None:
    places = Places()
    places.taken = ALLOWED - 1
    assert not places.are_taken(0)
    places.taken = ALLOWED
    assert places.are_taken(0)


def test_a_server_that_may_allow_more_is_asked_in_the_end() -> None:
    places = Places()
    places.taken = ALLOWED
    assert not places.are_taken(100)
    places.refused(refusal("in-flight updates"))
    assert places.are_taken(100)


def test_a_refusal_tells_how_many_places_there_are() -> None:
    places = Places()
    places.refused(refusal("limit on number of concurrent in-flight updates has been reached (3)"))
    places.taken = 2
    assert not places.are_taken(0)
    places.taken = 3
    assert places.are_taken(0)


def test_who_comes_back_after_a_throng_pauses_once() -> None:
    places = Places()
    assert places.first_pause() == 0
    places.missed()
    assert places.first_pause() > 0
    assert places.first_pause() == 0


def test_the_pause_grows_with_the_throng_up_to_an_end() -> None:
    pauses = [[Places().pause(throng) for _ in range(500)] for throng in (0, 2, 4, 50)]
    longest = [max(each) for each in pauses]
    assert longest[0] <= 0.8 < longest[1] < longest[2] <= 12.8
    assert longest[3] <= 12.8
    assert all(pause >= 0.02 for each in pauses for pause in each)
