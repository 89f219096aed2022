import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";
import { StrictMode, useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";

// The chat's id is in the address, so that another device that opens it sees the same chat.
const id = location.hash.slice(1) || `chat-${crypto.randomUUID().slice(0, 8)}`;
location.hash = id;

let running = null; // the answer to resume
const transport = new DefaultChatTransport({
  api: "/v1/ai",
  prepareReconnectToStreamRequest: () => ({ api: `/v1/ai/${id}/stream?turn=${encodeURIComponent(running)}` }),
});

// Calls back whenever it is connected, and when a device sends a message or answers an approval.
function watch(changed) {
  let events, again;
  const open = () => {
    const topics = "$input.accepted,$input.resolved";
    events = new EventSource(`/v1/sessions/${id}/events?topics=${topics}&from=now&wait_for_start=true`);
    events.onopen = events.onmessage = changed;
    events.onerror = () => {
      // A browser gives up after the proxy's answer for a gateway that is away.
      if (events.readyState === EventSource.CLOSED) again = setTimeout(open, 1000);
    };
  };
  open();
  return () => {
    clearTimeout(again);
    events.close();
  };
}

function Chat() {
  const [text, setText] = useState("");
  const [news, setNews] = useState(0); // counts the changes
  const shown = useRef(-1); // those that the page shows
  const { messages, sendMessage, setMessages, resumeStream, addToolApprovalResponse, status, error } = useChat({
    id,
    transport,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });

  const isIdle = status === "ready" || status === "error";
  const changed = () => setNews((count) => count + 1);

  // Show the messages, and resume the answer that runs.
  const load = async (isWanted) => {
    const answer = await fetch(`/v1/ai/${id}/messages`);
    const loaded = answer.ok && (await answer.json());
    if (!loaded || !isWanted()) return;
    shown.current = news;
    setMessages(loaded.messages);
    running = loaded.running;
    if (running) await resumeStream();
  };
  useEffect(() => watch(changed), []);
  useEffect(() => {
    if (!isIdle || shown.current === news) return;
    let isWanted = true; // until the page sends a message itself, or something changes again
    load(() => isWanted);
    return () => void (isWanted = false);
  }, [isIdle, news]);

  const submit = (event) => {
    event.preventDefault();
    sendMessage({ text });
    setText("");
  };

  return (
    <>
      {messages.map((message) => (
        <div key={message.id} className={message.role}>
          {message.parts.map((part, index) => (
            <Part key={index} part={part} answer={addToolApprovalResponse} />
          ))}
        </div>
      ))}
      {error && <button onClick={changed}>The connection was cut. Continue</button>}
      <form onSubmit={submit}>
        <input value={text} onChange={(event) => setText(event.target.value)} placeholder="How is the weather?" />
        <button disabled={!text || status === "streaming"}>Send</button>
        {status === "streaming" && (
          <button type="button" onClick={() => fetch(`/v1/ai/${id}/stop`, { method: "POST" })}>
            Stop
          </button>
        )}
      </form>
      <small id="status">{status}</small>
    </>
  );
}

function Part({ part, answer }) {
  if (part.type === "text") return <p>{part.text}</p>;
  if (part.type !== "tool-pay") return null;
  if (part.state !== "approval-requested") return <p>{`Payment: ${part.state}`}</p>;
  const { id, requestReason } = part.approval;
  return (
    <p>
      {requestReason} <button onClick={() => answer({ id, approved: true })}>Approve</button>
      <button onClick={() => answer({ id, approved: false })}>Deny</button>
    </p>
  );
}

createRoot(document.getElementById("chat")).render(
  <StrictMode>
    <Chat />
  </StrictMode>,
);
