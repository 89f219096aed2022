"""The HTTP interface: parses requests, calls the rooms below, and answers.

Only `app` may import it. Each file is a group of routes; PROTOCOL.md defines their meaning. Open `routes.py` first, then
`parts.py`, which lists what the routes call.
"""
