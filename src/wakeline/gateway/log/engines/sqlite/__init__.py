"""The default engine: one SQLite file, one writer, every append on disk before anybody sees it."""

from wakeline.gateway.log.engines.sqlite.engine import SqliteEngine
from wakeline.gateway.log.engines.sqlite.renewal import mark_restored

__all__ = ["SqliteEngine", "mark_restored"]
