"""Where sessions are kept. Only `wakeline.gateway.app` chooses one."""
