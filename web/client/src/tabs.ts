/**
 * One connection for all tabs of an origin: in a SharedWorker, else in the tab that holds a lock, else each tab's own.
 *
 * This part is loaded with the first live reading of a page, and imports nothing of the main entry, so that no code is
 * there twice.
 */

import type { WakelineError } from "./errors.ts";
import { type FromHost, type FromTab, Host, type HostWire, type Posted, type Wire } from "./host.ts";
import type { Ask, Hub, Listener } from "./live.ts";

/** What the client gives this part. */
export interface Sharing {
  /** A name that tabs of one user, device and gateway have in common. */
  readonly name: string;
  /** What a worker needs to make its hub. */
  readonly config: object;
  /** The worker's URL, if its file is served from another place than beside this one. */
  readonly worker?: string | URL | undefined;
  /** A hub of this page's own; with a token function it asks that one. */
  readonly local: (token?: () => Promise<string>) => Hub;
  readonly token: () => Promise<string>;
  readonly error: (posted: Posted) => WakelineError;
}

type TabWire = Wire<FromHost, FromTab>;

/** The longest wait for a worker, or for the tab that has the connections. */
const READY_MS = 3_000;
const ASK_AGAIN_MS = 500;
const PING_MS = 20_000;

/** A tab's readers at the host. */
class Route implements Hub {
  /** Called when the host answers. */
  ready = (): void => undefined;
  readonly #wire: TabWire;
  readonly #sharing: Sharing;
  readonly #listeners = new Map<number, Listener>();
  readonly #ended: () => void;
  #next = 0;
  #pinging: ReturnType<typeof setTimeout> | undefined;

  constructor(wire: TabWire, sharing: Sharing, ended: () => void) {
    this.#wire = wire;
    this.#sharing = sharing;
    this.#ended = ended;
    wire.receive = (message) => this.#take(message);
  }

  join(ask: Ask, cursor: string, listener: Listener): () => void {
    const id = this.#next++;
    this.#listeners.set(id, listener);
    this.#wire.post({ do: "join", id, ask, cursor });
    this.#pinging ??= setTimeout(() => this.#ping(), PING_MS);
    return () => {
      if (this.#listeners.delete(id)) this.#wire.post({ do: "leave", id });
    };
  }

  check(): void {
    this.#wire.post({ do: "check" });
    this.#ping();
  }

  drop(): void {
    this.#wire.post({ do: "bye" });
    this.over();
  }

  close(): void {
    this.drop();
  }

  /** The host is gone: readers page on, and join again. */
  over(): void {
    clearTimeout(this.#pinging);
    const listeners = [...this.#listeners.values()];
    this.#listeners.clear();
    this.#ended();
    for (const listener of listeners) listener.over();
  }

  /** A tab that is frozen, or a worker that is gone, does not answer. */
  #ping(): void {
    clearTimeout(this.#pinging);
    this.#wire.post({ do: "ping" });
    this.#pinging = setTimeout(() => this.over(), READY_MS);
  }

  #take(message: FromHost): void {
    clearTimeout(this.#pinging);
    this.#pinging = setTimeout(() => this.#ping(), PING_MS);
    if (message.did === "ready") this.ready();
    else if (message.did === "token") void this.#giveToken();
    else {
      const listener = this.#listeners.get(message.id);
      if (message.did === "opened") listener?.opened();
      else if (message.did === "events") listener?.events(message.events, message.cursor);
      else if (message.did === "presence") listener?.presence(message.devices);
      else {
        this.#listeners.delete(message.id);
        listener?.over(message.error && this.#sharing.error(message.error));
      }
    }
  }

  async #giveToken(): Promise<void> {
    try {
      this.#wire.post({ do: "token", token: await this.#sharing.token() });
    } catch (error) {
      this.#wire.post({ do: "token", error: String(error) });
    }
  }
}

/** The way to what the tabs share; `lost` is called when it ends. */
export async function share(sharing: Sharing, lost: () => void): Promise<Hub> {
  // Held for as long as the way lasts: the host learns from its release that this tab is gone.
  const lock = `wakeline tab ${Math.random().toString(36).slice(2)}`;
  const stop = new AbortController();
  const ended = () => {
    stop.abort();
    lost();
  };
  const held = new Promise<void>((resolve) => {
    if (!navigator.locks) return resolve();
    void hold(lock, stop.signal, resolve);
  });
  await held;
  return (await overWorker(sharing, lock, ended)) ?? (await overLock(sharing, lock, ended)) ?? sharing.local();
}

/** Hold a lock, once it is free, until the signal aborts. */
function hold(name: string, signal: AbortSignal, begun: () => void): Promise<void> {
  const holding = () =>
    new Promise<void>((release) => {
      signal.addEventListener("abort", () => release());
      if (signal.aborted) release();
      else begun();
    });
  return navigator.locks.request(name, { signal }, holding).catch(() => undefined);
}

/** The route to a SharedWorker; `undefined` where there is none, or its file cannot be loaded. */
function overWorker(sharing: Sharing, lock: string, ended: () => void): Promise<Route | undefined> {
  const { name, worker, config } = sharing;
  return new Promise((resolve) => {
    if (typeof SharedWorker === "undefined") return resolve(undefined);
    try {
      const how = { type: "module", name } as const;
      const shared = worker
        ? new SharedWorker(worker, how)
        : new SharedWorker(new URL(/* @vite-ignore */ "./worker.js", import.meta.url), { type: "module", name });
      const { port } = shared;
      const wire: TabWire = { post: (message) => port.postMessage(message), receive: () => undefined };
      port.onmessage = ({ data }) => wire.receive(data as FromHost);
      let settled = false;
      const settle = (found: Route | undefined) => {
        if (settled) return;
        settled = true;
        clearTimeout(late);
        if (!found) port.close();
        resolve(found);
      };
      const route = new Route(wire, sharing, () => {
        port.close();
        if (settled) ended();
      });
      const late = setTimeout(settle, READY_MS);
      shared.onerror = () => settle(undefined);
      route.ready = () => settle(route);
      port.postMessage(config);
      wire.post({ do: "hello", lock });
    } catch {
      resolve(undefined);
    }
  });
}

/** The route to the tab that holds the host's lock, perhaps this one. */
function overLock(sharing: Sharing, me: string, ended: () => void): Promise<Route | undefined> {
  const { name, local } = sharing;
  return new Promise((resolve) => {
    if (!navigator.locks || typeof BroadcastChannel === "undefined") return resolve(undefined);
    const channel = new BroadcastChannel(`wakeline ${name}`);
    const stop = new AbortController();
    const wires = new Map<string, HostWire>();
    let host: Host | undefined;
    let settled = false;
    const toHost = (from: string, message: FromTab) => {
      let tab = wires.get(from);
      if (!tab) {
        const post = (answer: FromHost) => {
          if (from === me) queueMicrotask(() => wire.receive(answer));
          else if (!stop.signal.aborted) channel.postMessage({ to: from, message: answer });
        };
        tab = { post, receive: () => undefined };
        wires.set(from, tab);
        host?.add(tab);
      }
      tab.receive(message);
      if (message.do === "bye") wires.delete(from);
    };
    const wire: TabWire = {
      post: (message) => {
        if (host) toHost(me, message);
        else if (!stop.signal.aborted) channel.postMessage({ to: "host", from: me, message });
      },
      receive: () => undefined,
    };
    const end = () => {
      if (stop.signal.aborted) return;
      clearInterval(asking);
      clearTimeout(late);
      stop.abort();
      host?.close();
      channel.close();
      if (settled) ended();
    };
    const settle = (found: Route | undefined) => {
      clearInterval(asking);
      clearTimeout(late);
      if (settled) return;
      if (!found) end();
      settled = true;
      resolve(found);
    };
    const route = new Route(wire, sharing, end);
    route.ready = () => settle(route);
    const hello = () => wire.post({ do: "hello", lock: me });
    channel.onmessage = ({ data }) => {
      if (data.to === me) wire.receive(data.message as FromHost);
      else if (data.to === "host" && host) toHost(data.from as string, data.message as FromTab);
      // Another tab has taken over: what was joined at the last one is joined there again.
      else if (data.to === "all" && settled) route.over();
    };
    const asking = setInterval(hello, ASK_AGAIN_MS);
    // A tab that is frozen holds the lock and does not answer.
    const late = setTimeout(settle, READY_MS);
    hello();
    void hold(`wakeline host ${name}`, stop.signal, () => {
      host = new Host((token) => local(token));
      channel.postMessage({ to: "all" });
      // What this tab had joined at the last host is joined here.
      if (settled) route.over();
      else hello();
    });
  });
}
