"""The engine on PostgreSQL, which any number of gateways share.

An append is decided and written in one transaction, which holds the rows of its sessions. Open `engine.py` first, then
`writer.py` (the group commit), `transaction.py` and `watches.py` (what other gateways have written). `refusals.py` has the
hints of a start that fails.
"""

from wakeline.gateway.log.engines.postgres.engine import PostgresEngine
