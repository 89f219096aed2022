"""The default engine: one SQLite file, one writer, every append on disk before anybody sees it."""

from wakeline.gateway.engines.sqlite.engine import SqliteEngine

__all__ = ["SqliteEngine"]
