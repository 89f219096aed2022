// A page with HttpAgent of @ag-ui/client.
import { HttpAgent, runHttpRequest, transformHttpEventStream } from "@ag-ui/client";

export default async function begin([url], variables) {
  let token = variables.TOKEN;

  // HttpAgent leaves `connect` to its subclasses, and its `abortRun` ends the page's stream only.
  class Agent extends HttpAgent {
    connect() {
      const init = { headers: { accept: "text/event-stream" }, signal: this.abortController.signal };
      return transformHttpEventStream(runHttpRequest(() => this.fetch(`${this.url}${variables.QUERY ?? ""}`, init)));
    }

    abortRun() {
      void this.fetch(`${this.url}/stop`, { method: "POST" });
    }
  }

  const authorized = (url, init) =>
    fetch(url, { ...init, headers: { ...init.headers, ...(token && { authorization: `Bearer ${token}` }) } });
  const agent = new Agent({ url, threadId: "thread", fetch: authorized });
  const errors = [];
  const events = [];
  const subscriber = {
    onEvent: ({ event }) => void events.push(event),
    onRunFailed: ({ error }) => void errors.push(error.message),
    onRunErrorEvent: ({ event }) => void errors.push(event.message),
  };
  const quietly = (running) => void running.catch((error) => errors.push(error.message));

  return {
    send: ({ text }) => {
      agent.addMessage({ id: crypto.randomUUID(), role: "user", content: text });
      quietly(agent.runAgent({ forwardedProps: JSON.parse(variables.PROPS ?? "{}") }, subscriber));
    },
    connect: () => quietly(agent.connectAgent({}, subscriber)),
    resume: ({ resume }) => quietly(agent.runAgent({ resume }, subscriber)),
    abort: () => agent.abortRun(),
    token: (asked) => {
      token = asked.token;
    },
    // The client rejects a promise that nobody holds when its connection is cut; a browser would log it.
    rejected: (error) => errors.push(error.message),
    state: () => ({
      running: agent.isRunning,
      messages: agent.messages,
      interrupts: agent.pendingInterrupts,
      errors,
      types: events.map((event) => event.type),
      events,
    }),
  };
}
