"""Transports: each is one way for events to reach devices, all through the same `Device`.

`http` and `app` may import it. Open `sse.py` first, the simplest complete transport. `conversation.py` and
`publishing.py` serve the WebSockets.
"""
