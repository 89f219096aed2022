"""What other libraries do, told to a session as it happens. Each module needs its library; the extra of that name brings it.

    temporal.py         WakelinePlugin: every activity has a session at hand and tells how it goes
      activity_session.py   the session that the running activity has
      activity_reports.py   how an activity goes
    openai.py           the streams of OpenAI's API, and of all that speak it      wakeline[openai]
    pydantic_ai.py      the events of a Pydantic AI agent                          wakeline[pydantic-ai]
    langchain.py        the callbacks of LangChain and LangGraph                   wakeline[langchain]
    openai_agents.py    the OpenAI Agents SDK in Temporal workflows                wakeline[openai-agents]
      output.py           what they all tell, and how: text, tools, steps, usage
      extras.py           what they say where their library is not installed

Nothing is imported here: whoever uses one of them need not have the libraries of the others.
"""
