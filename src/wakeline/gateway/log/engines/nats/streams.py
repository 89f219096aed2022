"""The streams of a store: their names, and their configuration, which is created or checked."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final
from zlib import crc32

import msgspec

from wakeline.errors import EngineRefusedError, StorageFailedError
from wakeline.gateway.log.engines.nats.link import UNAVAILABLE, Link, RefusedError
from wakeline.gateway.log.engines.nats.messages import token
from wakeline.gateway.log.engines.nats.target import Target
from wakeline.retry import Backoff

VERSION: Final = "2"
_NAME_IN_USE: Final = 10058
_NO_JETSTREAM: Final = (10039, 10076)
_UNAVAILABLE: Final = 503
_TRIES: Final = 20
_NO_PEERS: Final = (10005, 10074)
_IMPOSSIBLE: Final = {"Nats-Expected-Last-Subject-Sequence": str(1 << 60)}
_WINDOW_NANOSECONDS: Final = 30_000_000_000
_HEARD_NANOSECONDS: Final = 5 * 10**9  # replicas confirm to their leader each second that they are there


class Stream(msgspec.Struct, frozen=True):
    """A stream, its subjects, and where its new messages are published again.

    Attributes:
        name: Its name.
        subjects: The beginning of its subjects.
        live: The beginning of the subjects of its new messages.
        latest: Whether it keeps only the last message of a subject.
    """

    name: str
    subjects: str
    live: str
    latest: bool = False

    def subject(self, name: str) -> str:
        """Return the subject of a session or a record."""
        return f"{self.subjects}.{token(name)}"


class _Replica(msgspec.Struct):
    current: bool = False
    active: int = 0


class Cluster(msgspec.Struct):
    """The servers that have a stream."""

    leader: str = ""
    replicas: list[_Replica] = []

    @property
    def can_store(self) -> bool:
        """Whether there is a leader that has heard from a majority a moment ago."""
        heard = 1 + sum(replica.active < _HEARD_NANOSECONDS for replica in self.replicas)
        return bool(self.leader) and 2 * heard > len(self.replicas) + 1


class _Config(msgspec.Struct):
    num_replicas: int = 1


class _State(msgspec.Struct):
    last_seq: int
    messages: int = 0
    bytes: int = 0


class StreamInfo(msgspec.Struct):
    """A stream as its leader describes it; without a cluster there is one server."""

    state: _State
    config: _Config = msgspec.field(default_factory=_Config)
    cluster: Cluster | None = None

    @classmethod
    async def of(cls, link: Link, stream: Stream) -> StreamInfo:
        """Return the description of a stream.

        Raises:
            RefusedError: JetStream does not describe it.
            StorageFailedError: It does not answer.
        """
        return msgspec.json.decode(await link.api(f"STREAM.INFO.{stream.name}"), type=cls)


class Streams:
    """The streams of a store.

    Args:
        target: Has their number, and the beginning of their names.

    Attributes:
        shards: The streams of sessions.
        records: The stream of records.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        name = target.prefix
        self.shards = [
            Stream(f"{name}-sessions-{n}", f"{name}.sessions.{n}", f"{name}.live.sessions.{n}")
            for n in range(target.shards)
        ]
        self.records = Stream(f"{name}-records", f"{name}.records", f"{name}.live.records", latest=True)

    def of(self, session: str) -> Stream:
        """Return the stream of a session."""
        return self.shards[crc32(session.encode()) % len(self.shards)]

    async def open(self, link: Link, replicas: int) -> None:
        """Create the streams that do not exist, and check the others.

        Raises:
            EngineRefusedError: One has another configuration, or cannot be created.
        """
        for stream in (self.records, *self.shards):
            wanted, backoff = self._config(stream, replicas), Backoff(0.1, 1.0)
            while True:
                try:
                    answer = await self._created(link, stream, wanted)
                    break
                except RefusedError as error:
                    passes = error.failure.code == _UNAVAILABLE or error.failure.err_code in _NO_PEERS
                    if not passes or error.failure.err_code in _NO_JETSTREAM:
                        raise self._refusal(stream, error) from None
                    trouble = error
                except StorageFailedError:
                    trouble = None
                if link.client.denied:
                    raise self._denial(link)
                if backoff.failures >= _TRIES:
                    raise self._refusal(stream, trouble)
                await backoff.wait()  # the cluster elects a leader, or a node of it is starting
            self._check(stream, wanted, msgspec.json.decode(answer)["config"])

    async def check_permissions(self, link: Link) -> None:
        """Check that the user may publish and subscribe; call when all subscriptions are made.

        Raises:
            EngineRefusedError: The user may not.
        """
        for stream in (self.records, *self.shards):
            with suppress(*UNAVAILABLE):  # JetStream refuses the message, unless the server has ignored it
                await link.call(stream.subject(""), headers=_IMPOSSIBLE)
            if link.client.denied:
                raise self._denial(link)

    def _denial(self, link: Link) -> EngineRefusedError:
        return self._target.unfit(
            f"that the user may use the streams, it answered: {link.client.denied[:200]}",
            "Give the user the permissions that docs/operate/nats.md lists.",
        )

    async def _created(self, link: Link, stream: Stream, wanted: dict[str, Any]) -> bytes:
        """Create a stream; return its description, of an existing one, too."""
        try:
            return await link.api(f"STREAM.CREATE.{stream.name}", wanted)
        except RefusedError as error:
            if error.failure.err_code != _NAME_IN_USE:
                raise
        return await link.api(f"STREAM.INFO.{stream.name}")

    def _config(self, stream: Stream, replicas: int) -> dict[str, Any]:
        return {
            "name": stream.name,
            "description": "Sessions of Wakeline. Do not edit.",
            "subjects": [f"{stream.subjects}.*"],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": replicas,
            "max_msgs_per_subject": 1 if stream.latest else -1,
            "duplicate_window": _WINDOW_NANOSECONDS,
            "allow_direct": True,
            "republish": {"src": f"{stream.subjects}.*", "dest": f"{stream.live}.{{{{wildcard(1)}}}}"},
            "metadata": {"wakeline": VERSION, "shards": str(len(self.shards))},
        }

    def _check(self, stream: Stream, wanted: dict[str, Any], found: dict[str, Any]) -> None:
        """Raise unless a stream has the configuration that it needs."""
        metadata = found.get("metadata") or {}
        if metadata.get("wakeline") != VERSION:
            raise self._target.unfit(
                f"stream {stream.name} in layout {VERSION} of Wakeline, it has layout {metadata.get('wakeline')}",
                "Use another name in the engine's address (nats://HOST/NAME), or the version of Wakeline that made it.",
            )
        if metadata.get("shards") != wanted["metadata"]["shards"]:
            raise self._target.unfit(
                f"stream {stream.name} of {wanted['metadata']['shards']} shards, it is one of {metadata.get('shards')}",
                f"Set shards={metadata.get('shards')} in the engine's address: the number cannot be changed.",
            )
        if found.get("num_replicas", 1) < wanted["num_replicas"]:
            raise self._target.unfit(
                f"{wanted['num_replicas']} replicas of stream {stream.name}, it has {found.get('num_replicas', 1)}",
                f"Change it: nats stream edit {stream.name} --replicas={wanted['num_replicas']}. Or accept fewer with"
                f" replicas={found.get('num_replicas', 1)} in the engine's address.",
            )
        for key in sorted(wanted.keys() - {"metadata", "num_replicas", "description"}):
            # A limit is as bad as another setting: a stream that drops messages loses events.
            if found.get(key) != wanted[key]:
                raise self._other(stream, key, wanted[key], found.get(key))
        for key in ("max_msgs", "max_bytes"):
            if found.get(key, -1) != -1:
                raise self._other(stream, key, -1, found[key])
        for key in ("max_age", "sealed", "deny_purge", "mirror", "sources", "subject_transform"):
            if found.get(key):
                raise self._other(stream, key, None, found[key])

    def _other(self, stream: Stream, key: str, wanted: object, found: object) -> EngineRefusedError:
        return self._target.unfit(
            f"stream {stream.name} with {key} = {wanted}, it has {found}",
            f"Correct it with nats stream edit {stream.name}, or use another name in the engine's address.",
        )

    def _refusal(self, stream: Stream, error: RefusedError | None) -> EngineRefusedError:
        if error is None:
            return self._target.unfit(
                f"that JetStream answers a request for stream {stream.name}, it did not",
                "Enable JetStream on every server, and give the user the permissions that docs/operate/nats.md lists.",
            )
        code = error.failure.err_code
        if code in _NO_JETSTREAM:
            return self._target.unfit(
                f"JetStream, it answered: {error}", "Add a jetstream block to the configuration of every server."
            )
        if code in _NO_PEERS:
            return self._target.unfit(
                f"enough nodes for the replicas of stream {stream.name}, it answered: {error}",
                "Start all nodes, or set replicas= in the engine's address.",
            )
        return self._target.unfit(
            f"that stream {stream.name} can be created, it answered: {error}",
            "Give the user the permissions and limits that docs/operate/nats.md lists.",
        )
