"""Workflow Streams at work: one folder an example. `python -m examples` runs all, `python -m examples.order` one."""
