"""A chat completion and a response of OpenAI's API, watched token by token. Run it by `python -m examples.openai`."""

from __future__ import annotations

from examples.fake_openai import Turn
from examples.live import Live, LiveExample, main
from wakeline.integrations.openai import publish_chat, publish_response
from wakeline.publisher import SessionPublisher

QUESTION = "What is durable execution? One short sentence."
SCRIPT = [Turn(text=["Work ", "that ", "survives."]), Turn(text=["It ", "survives."])]
EXPECTED = """
[answer] "Work "
[answer] "that "
[answer] "survives."
[answer] complete
[answer] "It "
[answer] "survives."
[answer] complete
the chat completion: Work that survives.
the response: It survives.
"""


async def play(live: Live) -> None:
    """Ask twice: by chat completions, and by responses."""
    async with live.watched("ask", ["answer"]), SessionPublisher(live.url, session="ask") as session:
        chunks = await live.openai.chat.completions.create(
            model=live.model,
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
        )
        answer = await publish_chat(chunks, session, message="chat")
        events = await live.openai.responses.create(model=live.model, input=QUESTION, stream=True)
        response = await publish_response(events, session, message="response")
    live.show("the chat completion:", answer.text)
    live.show("the response:", response.output_text)


EXAMPLE = LiveExample("openai", play, SCRIPT, EXPECTED)

if __name__ == "__main__":
    main(EXAMPLE)
