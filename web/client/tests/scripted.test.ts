/** The client against gateways that answer by a script: what a real one seldom answers. */

import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { fresh, publish, request, token, until } from "../../testing/gateway.ts";
import { Host, type HostWire } from "../src/host.ts";
import type { ConnectOptions, Device, SessionEvent } from "../src/index.ts";
import { PublishDroppedError, SessionPublisher } from "../src/publisher/index.ts";
import { client, keyed, numbers, url } from "./support.ts";

const TIMING = { pause: [1, 20] as const };

type Frame = { readonly type: string; readonly session?: string; readonly [field: string]: unknown };

/** The WebSockets that were made, in order, each with the frames that the client sent on it. */
let sockets: Scripted[] = [];
/** What a gateway answers to a frame. */
let script: (socket: Scripted, frame: Frame) => void = () => undefined;

class Scripted {
  readonly sent: Frame[] = [];
  readyState = 0;
  onopen?: () => void;
  onmessage?: (message: { data: string }) => void;
  onclose?: (close: { code: number; reason: string }) => void;

  constructor() {
    sockets.push(this);
    setTimeout(() => {
      this.readyState = 1;
      this.onopen?.();
      this.answer({ type: "ready" });
    });
  }

  answer(...frames: object[]): void {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  send(text: string): void {
    const frame = JSON.parse(text) as Frame;
    this.sent.push(frame);
    setTimeout(() => script(this, frame));
  }

  close(): void {
    this.readyState = 3;
  }

  /** The connection breaks. */
  cut(): void {
    this.close();
    this.onclose?.({ code: 1006, reason: "" });
  }
}

beforeEach(() => {
  sockets = [];
});

afterEach(() => vi.unstubAllGlobals());

const pageTo = (offset: number) => ({
  events: [],
  from: `e-${offset}`,
  cursor: `e-${offset}`,
  up_to_date: true,
  settled: false,
  closed: false,
});

/** A client whose pages are empty, and whose WebSockets answer by the script. */
function scripted(options: ConnectOptions = {}) {
  vi.stubGlobal("WebSocket", Scripted);
  return client({ fetch: async () => Response.json(pageTo(0)), timing: TIMING, ...options });
}

const opening = (socket: Scripted, { type, session }: Frame) => {
  if (type === "subscribe") socket.answer({ type: "subscribed", session });
  if (type === "unsubscribe") socket.answer({ type: "unsubscribed", session });
};

const failing = (code: string) => ({ type: "error", error: { code, message: "a failure", hint: "" } });

test.each(["storage_failed", "storage_full", "internal", "temporal_unavailable", "session_importing"])(
  "a reading goes on after the feed's %s, whether it was subscribed or not",
  async (code) => {
    let subscribed = 0;
    script = (socket, frame) => {
      if (frame.type !== "subscribe") return;
      const { session } = frame;
      subscribed += 1;
      if (subscribed === 1) socket.answer({ ...failing(code), session });
      else if (subscribed === 2) {
        socket.answer({ type: "subscribed", session }, { ...failing(code), session });
        socket.answer({ type: "end", session, reason: "error" });
      } else {
        const event = { offset: 0, topic: "n", data: "here", time: "2026-01-01T00:00:00Z" };
        socket.answer({ type: "subscribed", session }, { type: "events", session, events: [event], cursor: "e-1" });
      }
    };
    const events = scripted().session("s").events();
    expect((await events.next()).value?.data).toBe("here");
    expect(subscribed).toBe(3);
  },
);

test("a refusal of the feed that no retry changes ends the reading", async () => {
  script = (socket, { type, session }) => {
    if (type === "subscribe") socket.answer({ ...failing("not_allowed"), session });
  };
  await expect(scripted().session("s").events().next()).rejects.toMatchObject({ code: "not_allowed", retry: false });
});

test("a reading goes on when a renewed token allows other topics", async () => {
  const name = fresh();
  const bearer = token();
  const post = (topic: string, data: number) =>
    request(keyed, "POST", `/v1/sessions/${name}/events`, { events: [{ topic, data }] }, bearer);
  await post("n", 0);
  let asked = 0;
  const fetchToken = () => {
    asked += 1;
    return asked === 1 ? token({ seconds: 2 }) : token({ wakeline: { topics: ["n"] } });
  };
  const events = client({ url: keyed, token: fetchToken, transport: "websocket" }).session(name).events();
  expect((await events.next()).value?.data).toBe(0);
  await until(() => asked > 1);
  await post("m", 1);
  await post("n", 2);
  expect((await events.next()).value?.data).toBe(2);
});

test("a page that is shown again pings each connection once", async () => {
  script = opening;
  const listeners = new Map<string, () => void>();
  vi.stubGlobal("addEventListener", (name: string, listener: () => void) => listeners.set(name, listener));
  vi.stubGlobal("navigator", {});
  const made = scripted();
  const readings = Array.from({ length: 20 }, (_, n) => made.session(`s-${n}`).events());
  await until(() => readings.every(({ state }) => state.status === "live"));
  listeners.get("online")?.();
  const pings = sockets.flatMap(({ sent }) => sent.filter(({ type }) => type === "ping"));
  expect([sockets.length, pings.length]).toEqual([1, 1]);
});

test("devices that left while the connection was away are not present after it", async () => {
  script = (socket, frame) => {
    opening(socket, frame);
    if (frame.type === "subscribe" && sockets.length === 1) {
      socket.answer({ type: "presence", session: frame.session, event: "join", user: "u", device: "phone" });
    }
  };
  let present: readonly Device[] | undefined;
  scripted()
    .session("s")
    .presence((devices) => {
      present = devices;
    });
  await until(() => present?.length === 1);
  sockets[0]?.cut();
  await until(() => present?.length === 0);
});

test("a session that is deleted while the page waits for a start is not created again", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 1));
  const events = client({ transport: "long-poll" }).session(name).events({ waitForStart: true });
  await events.next();
  await until(() => events.state.status === "live");
  await request(url, "DELETE", `/v1/sessions/${name}`);
  await expect(events.next()).rejects.toMatchObject({ code: "session_not_found" });
  await expect(request(url, "GET", `/v1/sessions/${name}`)).rejects.toThrow("404");
});

test("a watcher that throws ends no reading", async () => {
  const thrown: unknown[] = [];
  const told = (error: unknown) => thrown.push(error);
  const others = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", told);
  onTestFinished(() => {
    process.removeListener("uncaughtException", told);
    for (const other of others) process.on("uncaughtException", other);
  });
  const name = fresh();
  await publish(url, name, ...numbers(0, 1));
  const session = client().session(name);
  const unwatch = session.onState(() => {
    throw new Error("a defect of the page");
  });
  const events = session.events();
  expect((await events.next()).value?.data).toBe(0);
  await until(() => events.state.status === "live");
  await publish(url, name, ...numbers(1, 1));
  expect((await events.next()).value?.data).toBe(1);
  await until(() => thrown.length > 0);
  unwatch();
});

test("a storage that is full ends no reading", async () => {
  const warned = vi.spyOn(console, "warn").mockReturnValue();
  const name = fresh();
  await publish(url, name, ...numbers(0, 3));
  const full = () => {
    throw new DOMException("the quota has been exceeded", "QuotaExceededError");
  };
  const storage = { getItem: () => null, setItem: full, removeItem: full };
  const got: unknown[] = [];
  const events = client({ storage }).session(name).events({ resume: "list" });
  for await (const { data } of events) if (got.push(data) === 3) break;
  expect(got).toEqual([0, 1, 2]);
  expect(events.state.status).toBe("stopped");
  await until(() => warned.mock.calls.length > 0);
});

test("a storage that the page may not use ends no reading", async () => {
  vi.spyOn(console, "warn").mockReturnValue();
  const name = fresh();
  await publish(url, name, ...numbers(0, 3));
  const refuse = () => {
    throw new DOMException("the operation is insecure", "SecurityError");
  };
  const storage = { getItem: refuse, setItem: refuse, removeItem: refuse };
  const got: unknown[] = [];
  for await (const { data } of client({ storage }).session(name).events({ resume: "list" }))
    if (got.push(data) === 3) break;
  expect(got).toEqual([0, 1, 2]);
});

test("a tab that closes while its token is asked for is passed over at once", async () => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  vi.stubGlobal("navigator", {});
  let ask: () => Promise<string> = () => Promise.reject(new Error("no hub was made"));
  const host = new Host((token) => {
    ask = token;
    return { join: () => () => undefined, check: () => undefined, drop: () => undefined, close: () => undefined };
  });
  const asked: string[] = [];
  const open = (name: string) => {
    const tab: HostWire = { post: ({ did }) => did === "token" && asked.push(name), receive: () => undefined };
    host.add(tab);
    tab.receive({ do: "hello", lock: name });
    return tab;
  };
  const [first, other, last] = [open("first"), open("other"), open("last")];
  const given = ask();
  other.receive({ do: "bye" });
  last.receive({ do: "bye" });
  await vi.advanceTimersByTimeAsync(0);
  expect(asked).toEqual(["last", "first"]);
  first.receive({ do: "token", token: "fresh" });
  expect(await given).toBe("fresh");
});

test("a closed client ends what it sends", async () => {
  const made = client({ fetch: () => Promise.reject(new TypeError("no network")), timing: TIMING });
  const sent = made.session("s").send("hello");
  const failed = expect(sent).rejects.toMatchObject({ code: "closed", retry: false });
  await new Promise((resolve) => setTimeout(resolve, 50));
  made.close();
  await failed;
});

test("of several positions at a time the one that is furthest is acknowledged", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 20));
  const session = client({ device: "phone" }).session(name);
  const events = session.events();
  await events.next();
  await Promise.all([session.seen(10), session.seen(3)]);
  const { devices } = await request(url, "GET", `/v1/sessions/${name}/devices`);
  expect(devices[0].seen).toMatch(/-11$/);
});

test("a position that is further counts for all devices if a later call wants it", async () => {
  const bodies: unknown[] = [];
  let answer: () => void = () => undefined;
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const made = client({
    device: "phone",
    fetch: async (_, init) => {
      bodies.push(JSON.parse(String(init?.body)));
      await answered;
      return Response.json({});
    },
  });
  const session = made.session("s");
  const first = session.seen("abc-11");
  await until(() => bodies.length === 1);
  const second = session.seen("abc-4", { everywhere: true });
  answer();
  await Promise.all([first, second]);
  expect(bodies).toEqual([{ seen: "abc-11" }, { seen: "abc-11", everywhere: true }]);
});

test("a long-poll reports nothing of presence", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 1));
  const session = client({ transport: "long-poll" }).session(name);
  const reported: unknown[] = [];
  onTestFinished(session.presence((devices) => reported.push(devices)));
  const events = session.events();
  await events.next();
  await until(() => events.state.status === "live");
  await new Promise((resolve) => setTimeout(resolve, 1200));
  expect(reported).toEqual([]);
});

test("a position can be acknowledged after the reading has ended", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 1));
  const session = client({ device: "phone" }).session(name);
  const got: SessionEvent[] = [];
  for await (const event of session.events()) if (got.push(event)) break;
  await session.seen(0);
  const { devices } = await request(url, "GET", `/v1/sessions/${name}/devices`);
  expect(devices[0].seen).toMatch(/-1$/);
});

test.each([
  ["too_many_publishers", 409],
  ["session_name_invalid", 400],
])("a publisher whose opening is refused with %s reports its events and pauses", async (code, status) => {
  vi.stubGlobal("WebSocket", undefined);
  let asked = 0;
  const made = new SessionPublisher({
    ...{ url, session: "s", timing: { pause: [20, 40] as const } },
    fetch: async () => {
      asked += 1;
      return Response.json(failing(code), { status });
    },
  });
  for (let n = 0; n < 3; n += 1) await made.publish("n", n);
  const dropped = await made.flush().catch((error: unknown) => error);
  expect(dropped).toBeInstanceOf(PublishDroppedError);
  expect(dropped).toMatchObject({ code });
  await made.close().catch(() => undefined);
  expect(asked).toBeLessThan(5);
});

test("a publisher waits while its session is imported", async () => {
  script = (socket, { type }) => {
    if (type === "open" && sockets.length < 3) socket.answer(failing("session_importing"));
    else if (type === "open") socket.answer({ type: "opened", next_sequence: 0, earlier_events: 0, epoch: "e" });
    else if (type === "append") socket.answer({ type: "appended", next_sequence: 1 });
  };
  vi.stubGlobal("WebSocket", Scripted);
  const made = new SessionPublisher({ url, session: "s", timing: TIMING });
  await made.publish("n", 0);
  await made.close();
  expect(made.acknowledged).toBe(1);
});
