"""What a run says itself: its stream is read, and copied into its session, each item once."""
