"""From Temporal into sessions: one reader per run, whatever the number of devices, and the end of each run told once."""
