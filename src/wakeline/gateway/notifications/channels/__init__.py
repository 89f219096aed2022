"""Channels: how a notification reaches its receiver. One small class for each kind.

Open `channel.py` first: the interface. `outgoing.py` is the one HTTP client that all channels send with, and `guard.py` the
addresses that it may connect to. Other packages add kinds by the entry point `wakeline.channels`.
"""
