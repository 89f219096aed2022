"""Watches runs in Temporal: that something has happened, their state, and their end."""
