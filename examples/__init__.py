"""Examples, one folder each. `python -m examples` runs those that end, `python -m examples.order` runs one."""
