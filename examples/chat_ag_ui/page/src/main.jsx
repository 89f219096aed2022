import { HttpAgent, runHttpRequest, transformHttpEventStream } from "@ag-ui/client";
import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

// HttpAgent leaves `connect` to its subclasses; its own `abortRun` stops the page's stream, and not the answer.
class SessionAgent extends HttpAgent {
  connect() {
    return transformHttpEventStream(runHttpRequest(() => this.fetch(this.url, {})));
  }

  abortRun() {
    this.fetch(`${this.url}/stop`, { method: "POST" });
  }
}

// The chat's id is in the address, so that another device that opens it sees the same chat.
const id = location.hash.slice(1) || `chat-${crypto.randomUUID().slice(0, 8)}`;
location.hash = id;

const agent = new SessionAgent({ url: `/v1/ag-ui/${id}`, threadId: id });
let connected;

function Chat() {
  const [text, setText] = useState("");
  const [shown, setShown] = useState({ messages: [], interrupts: [], running: false });
  const [cut, setCut] = useState(false);

  useEffect(() => {
    const show = () =>
      setShown({ messages: [...agent.messages], interrupts: agent.pendingInterrupts, running: agent.isRunning });
    const { unsubscribe } = agent.subscribe({
      onRunInitialized: () => {
        setCut(false);
        show();
      },
      onMessagesChanged: show,
      onRunFinalized: show,
      onRunFailed: () => setCut(true),
    });
    // A run tells those who have subscribed before it.
    connected ??= agent.connectAgent();
    connected.then(show, () => setCut(true));
    return unsubscribe;
  }, []);

  const submit = (event) => {
    event.preventDefault();
    agent.addMessage({ id: crypto.randomUUID(), role: "user", content: text });
    agent.runAgent();
    setText("");
  };

  const answer = (interrupt, payload) =>
    agent.runAgent({ resume: [{ interruptId: interrupt.id, status: "resolved", payload }] });

  return (
    <>
      {shown.messages.map((message) => (
        <p key={message.id} className={message.role}>
          {message.role === "tool" ? `Payment: ${message.content}` : message.content}
        </p>
      ))}
      {shown.interrupts.map((interrupt) => (
        <p key={interrupt.id}>
          {interrupt.message} <button onClick={() => answer(interrupt, "approve")}>Approve</button>
          <button onClick={() => answer(interrupt, "deny")}>Deny</button>
        </p>
      ))}
      {cut && <button onClick={() => agent.connectAgent()}>The connection was cut. Continue</button>}
      <form onSubmit={submit}>
        <input value={text} onChange={(event) => setText(event.target.value)} placeholder="How is the weather?" />
        <button disabled={!text || shown.running}>Send</button>
        {shown.running && (
          <button type="button" onClick={() => agent.abortRun()}>
            Stop
          </button>
        )}
      </form>
    </>
  );
}

createRoot(document.getElementById("chat")).render(
  <StrictMode>
    <Chat />
  </StrictMode>,
);
