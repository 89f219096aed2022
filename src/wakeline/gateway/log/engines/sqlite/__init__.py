"""The default engine: one SQLite file with one writer thread.

An append is on disk before any reader receives its events. Open `engine.py` first, then `writer.py`.
"""

from wakeline.gateway.log.engines.sqlite.engine import SqliteEngine
from wakeline.gateway.log.engines.sqlite.renewal import check_stored, mark_restored
