"""Finds the workflows to follow, and their sessions: by name, by rule, by sweeps."""
