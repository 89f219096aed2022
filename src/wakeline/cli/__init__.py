"""The command line: one file per command; open `main.py` first.

Nothing is imported here, because workflow sandboxes import the demo's workflows again.
"""
