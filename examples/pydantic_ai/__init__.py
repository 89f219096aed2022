"""A Pydantic AI agent that calls a tool, watched."""
