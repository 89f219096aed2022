"""A chat completion and a response of OpenAI's API, watched token by token."""
