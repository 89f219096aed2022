import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";
import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

// The chat's id is in the address, so that another device that opens it sees the same chat.
const id = location.hash.slice(1) || `chat-${crypto.randomUUID().slice(0, 8)}`;
location.hash = id;

let running = null; // the answer to resume
const transport = new DefaultChatTransport({
  api: "/v1/ai",
  prepareReconnectToStreamRequest: () => ({ api: `/v1/ai/${id}/stream?turn=${encodeURIComponent(running)}` }),
});

function Chat() {
  const [text, setText] = useState("");
  const { messages, sendMessage, setMessages, resumeStream, addToolApprovalResponse, status, error } = useChat({
    id,
    transport,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });

  // Show the messages, and resume the answer that runs.
  const load = async (wanted = () => true) => {
    const loaded = await (await fetch(`/v1/ai/${id}/messages`)).json();
    if (!wanted()) return;
    setMessages(loaded.messages);
    running = loaded.running;
    if (running) await resumeStream();
  };
  useEffect(() => {
    let mounted = true; // in development React mounts twice: only one of them shows what it loads
    load(() => mounted);
    return () => void (mounted = false);
  }, []);

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
      {error && <button onClick={() => load()}>The connection was cut. Continue</button>}
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
