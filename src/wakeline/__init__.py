"""Wakeline: durable sessions for Temporal workflows.

This module stays empty of imports on purpose: workflow code imports `wakeline.streams`, and the workflow sandbox would
import everything named here with it.
"""

__version__ = "0.1.0"
