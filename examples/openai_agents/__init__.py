"""An agent of the OpenAI Agents SDK in a workflow: its words are watched while the model's activities run."""
