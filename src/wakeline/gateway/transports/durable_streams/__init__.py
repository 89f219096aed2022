"""The Durable Streams protocol over sessions, as docs/reference/durable-streams.md maps it.

A stream is a session, a message is an event, a live reader is a device: there is no second log and no second fan-out.
`http` may import this room. Open `stream.py` first, then `writing.py` and `reading.py`.

    headers.py    a request's headers: content type, lifetime, producer, closure
    offsets.py    positions and cursors on the wire
    content.py    converts bodies to events and back
    stream.py     a session in the terms of the protocol
    writing.py    create, append, close
    reading.py    catch-up and long-poll
    live.py       server-sent events
    lifetimes.py  ends streams that are unused for their `Stream-TTL`
"""
