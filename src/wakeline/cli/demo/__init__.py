"""`wakeline demo`: the promise, shown. Workflows talk, devices watch, things are killed, and everything is counted."""
