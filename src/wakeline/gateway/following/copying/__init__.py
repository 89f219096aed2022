"""The streams of runs: read, and copied into sessions, each item once."""
