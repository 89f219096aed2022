"""Temporal's knowledge of a run: history, end, chain, workers, and the failures of calls.

The gateway and `wakeline.streams` use it, so that a run ends in the same way for both. It imports `temporalio`, the
standard library and the leaf modules of `wakeline` only, because workflow sandboxes import it with `wakeline.streams`.
Open `endings.py` first, then `history.py`.
"""
