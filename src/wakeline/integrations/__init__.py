"""Integrations: the activity of other libraries, published to a session as it happens.

    temporal.py         WakelinePlugin: gives each activity a session and reports its state
      activity_session.py   the session of the running activity
      activity_reports.py   the states of activities
      workflow_tasks.py     nudges after workflow tasks
      children.py           children that join their parent's session
      leaving.py            delays a worker's end until its last events are read
    openai.py           streams of OpenAI's API and compatible endpoints           wakeline[openai]
    pydantic_ai.py      the events of a Pydantic AI agent                          wakeline[pydantic-ai]
    langchain.py        the callbacks of LangChain and LangGraph                   wakeline[langchain]
    openai_agents.py    the OpenAI Agents SDK in Temporal workflows                wakeline[openai-agents]
      output.py           the events that they all publish: text, tools, steps, usage
      extras.py           the error if a library is not installed

Nothing is imported here, so that each module needs only its own library. Open `temporal.py` first.
"""
