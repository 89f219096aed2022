/** One page's connections, used by all tabs of its origin: the side that has them. */

import type { WakelineError } from "./errors.ts";
import type { Ask, Hub } from "./live.ts";
import type { Device, WireEvent } from "./wire.ts";

/** A way between a tab and the host, such as a `MessagePort`. */
export interface Wire<In, Out> {
  post(message: Out): void;
  receive: (message: In) => void;
}

/** What a tab posts. */
export type FromTab =
  | { readonly do: "hello"; readonly lock: string }
  | { readonly do: "join"; readonly id: number; readonly ask: Ask; readonly cursor: string }
  | { readonly do: "leave"; readonly id: number }
  | { readonly do: "token"; readonly token?: string; readonly error?: string }
  | { readonly do: "check" }
  | { readonly do: "ping" }
  | { readonly do: "bye" };

/** An error as it is posted. */
export interface Posted {
  readonly refusal: WakelineError["details"];
  readonly status: number;
  readonly retryAfter: number;
}

/** What the host posts. */
export type FromHost =
  | { readonly did: "ready" }
  | { readonly did: "opened"; readonly id: number }
  | { readonly did: "events"; readonly id: number; readonly events: readonly WireEvent[]; readonly cursor: string }
  | { readonly did: "presence"; readonly id: number; readonly devices: readonly Device[] }
  | { readonly did: "over"; readonly id: number; readonly error?: Posted }
  | { readonly did: "token" };

export type HostWire = Wire<FromTab, FromHost>;

/** The longest wait for a tab's token; another tab is asked then. */
const TOKEN_MS = 10_000;

export class Host {
  readonly #tabs = new Map<HostWire, Map<number, () => void>>();
  readonly #hub: Hub;
  #asked: HostWire | undefined;
  #answer: ((token: string | undefined) => void) | undefined;

  /** Make a hub by a function that is given the tabs' token function. */
  constructor(make: (token: () => Promise<string>) => Hub) {
    this.#hub = make(() => this.#token());
  }

  /** Serve one more tab. */
  add(wire: HostWire): void {
    const joined = new Map<number, () => void>();
    wire.receive = (message) => {
      switch (message.do) {
        case "hello":
          this.#tabs.set(wire, joined);
          wire.post({ did: "ready" });
          // A tab that crashes says no goodbye: its lock is released.
          void globalThis.navigator?.locks?.request(message.lock, () => this.#remove(wire));
          break;
        case "join":
          this.#join(wire, joined, message.id, message.ask, message.cursor);
          break;
        case "leave":
          joined.get(message.id)?.();
          joined.delete(message.id);
          break;
        case "token":
          this.#answer?.(message.token);
          break;
        case "check":
          this.#hub.check();
          break;
        case "ping":
          wire.post({ did: "ready" });
          break;
        case "bye":
          this.#remove(wire);
      }
    };
  }

  close(): void {
    this.#hub.close();
    this.#tabs.clear();
  }

  #join(wire: HostWire, joined: Map<number, () => void>, id: number, ask: Ask, cursor: string): void {
    const leave = this.#hub.join(ask, cursor, {
      opened: () => wire.post({ did: "opened", id }),
      events: (events, cursor) => wire.post({ did: "events", id, events, cursor }),
      presence: (devices) => wire.post({ did: "presence", id, devices }),
      over: (error) => {
        joined.delete(id);
        if (!error) wire.post({ did: "over", id });
        else {
          const { details: refusal, status, retryAfter } = error;
          wire.post({ did: "over", id, error: { refusal, status, retryAfter } });
        }
      },
    });
    joined.set(id, leave);
  }

  #remove(wire: HostWire): void {
    for (const leave of this.#tabs.get(wire)?.values() ?? []) leave();
    this.#tabs.delete(wire);
    // A tab that is gone gives no token: the next one is asked at once.
    if (wire === this.#asked) this.#answer?.(undefined);
  }

  /** Ask the tabs for a fresh token, the newest one first. */
  async #token(): Promise<string> {
    for (const wire of [...this.#tabs.keys()].reverse()) {
      if (!this.#tabs.has(wire)) continue;
      this.#asked = wire;
      const token = await new Promise<string | undefined>((resolve) => {
        this.#answer = resolve;
        setTimeout(resolve, TOKEN_MS);
        wire.post({ did: "token" });
      });
      if (token) return token;
    }
    throw new Error("no tab has a token");
  }
}
