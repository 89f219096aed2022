"""The command line: one file a command. Nothing is imported here, since demo workflows are re-imported into sandboxes."""
