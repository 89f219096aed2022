"""An agent asks, a sleeping phone is notified and answers, a laptop sees it, and the run goes on."""
