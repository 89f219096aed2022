"""`wakeline demo`: workflows publish, devices watch, servers are killed, all events counted."""
