"""What could not be delivered is in the error, whatever the reason says of itself."""

from __future__ import annotations

from wakeline import publisher, streams
from wakeline.publisher import PublishDroppedError
from wakeline.streams import PublishDroppedError as StreamPublishDroppedError


def test_the_events_are_told_where_the_reason_has_events_of_its_own() -> None:
    reason = StreamPublishDroppedError("1 events were given up", events=())
    told = PublishDroppedError.because_of(reason, "1 events could not be kept", [b'{"topic":"t","data":7}'])
    assert [event.data for event in told.events] == [7]
    assert isinstance(told, StreamPublishDroppedError)


def test_a_program_that_moves_from_streams_to_publishers_keeps_its_handlers() -> None:
    for name in ("BufferFullError", "ValueRefusedError"):
        assert getattr(publisher, name) is getattr(streams, name)
        assert issubclass(getattr(publisher, name), (streams.StreamError, publisher.PublisherError))
    assert issubclass(streams.TopicTypeError, publisher.PublisherError)
