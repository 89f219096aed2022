"""Implementations of the log's ports; only `wakeline.gateway.app` imports and chooses one."""
