"""What Temporal says of a run: that something has happened, what it is doing, how it ended."""
