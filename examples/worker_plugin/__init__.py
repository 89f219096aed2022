"""A worker with `WakelinePlugin`: activities tell how they go with no code, and have a session at hand."""
