"""Which workflows are followed, and into which session: by name, by rule, by a sweep of each namespace."""
