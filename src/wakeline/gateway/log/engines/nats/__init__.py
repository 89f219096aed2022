"""The engine `nats`: sessions in a NATS JetStream cluster, which gateways share.

`engine.py` implements the ports. A session is one subject, and each of its messages is a batch with the session's state after it
(`messages.py`): a message is stored only if the one before it is still the last. `writer.py` decides and publishes, `tail.py`
follows each stream, `pages.py` reads. `survey.py` describes the streams. Open `engine.py` first.
"""

from __future__ import annotations

from wakeline.gateway.log.engines.nats.engine import NatsEngine
from wakeline.gateway.log.engines.nats.survey import StreamState, records_of, survey_streams

__all__ = ["NatsEngine", "StreamState", "records_of", "survey_streams"]
