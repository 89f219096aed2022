// A page with HttpAgent of @ag-ui/client. Each line on stdin is a command, answered by one line on stdout.
import { createInterface } from "node:readline";
import { HttpAgent, runHttpRequest, transformHttpEventStream } from "@ag-ui/client";

const [url] = process.argv.slice(2);
let token = process.env.TOKEN;

// HttpAgent leaves `connect` to its subclasses, and its `abortRun` ends the page's stream only.
class Agent extends HttpAgent {
  connect() {
    const init = { headers: { accept: "text/event-stream" }, signal: this.abortController.signal };
    return transformHttpEventStream(runHttpRequest(() => this.fetch(`${this.url}${process.env.QUERY ?? ""}`, init)));
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
// The client rejects a promise that nobody holds when its connection is cut; a browser would log it.
process.on("unhandledRejection", (error) => errors.push(error.message));
let count = 0;
const quietly = (running) => void running.catch((error) => errors.push(error.message));

const commands = {
  send: ({ text }) => {
    agent.addMessage({ id: `u${process.pid}-${count++}`, role: "user", content: text });
    quietly(agent.runAgent({ forwardedProps: JSON.parse(process.env.PROPS ?? "{}") }, subscriber));
  },
  connect: () => quietly(agent.connectAgent({}, subscriber)),
  resume: ({ resume }) => quietly(agent.runAgent({ resume }, subscriber)),
  abort: () => agent.abortRun(),
  token: (asked) => {
    token = asked.token;
  },
  state: () => ({
    running: agent.isRunning,
    messages: agent.messages,
    interrupts: agent.pendingInterrupts,
    errors,
    types: events.map((event) => event.type),
    events,
  }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...asked } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify((await commands[command](asked)) ?? null)}\n`);
}
