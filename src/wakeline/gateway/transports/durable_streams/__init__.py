"""The Durable Streams protocol over sessions; docs/reference/durable-streams.md tells how the two map.

There is no second log and no second fan-out here: a stream is a session, a message is an event, a live reader is a device.

    headers.py    what a request says: content type, lifetime, producer, closure
    offsets.py    positions and cursors as they are on the wire
    content.py    bodies into events, events into bodies
    stream.py     a session as the protocol sees it
    writing.py    create, append, close
    reading.py    catch-up and long-poll
    live.py       server-sent events
    order.py      what `Stream-Seq` asks for
    lifetimes.py  streams that end when nobody uses them
"""
