import { type Client, connect, WakelineError } from "@wakeline/client";
import { merge, toFollow } from "./choose.ts";
import { Feed } from "./feed.ts";
import { onLockScreen, type Question } from "./question.ts";
import type { DemoState, Notice, SessionInfo, WireEvent } from "./wire.ts";

/** `lost`: online, but the connection has broken and the client is on its way back. */
export type Presence = "live" | "lost" | "offline";

/** A time without a connection. */
export interface Absence {
  readonly since: number;
}

/** The end of an absence: how long it was, and how many events from that time have been filled in since. */
export interface Return {
  readonly at: number;
  readonly away: number;
  filled: number;
}

/** A place a person watches from. Two of them share this page, and nothing else. */
export class Device {
  readonly name: string;
  readonly feeds = new Map<string, Feed>();
  /** The sessions it knows of; an offline device learns of no new ones. */
  sessions: readonly SessionInfo[] = [];
  absence: Absence | undefined;
  back: Return | undefined;
  #host: string;
  #changed: () => void;
  #state: DemoState | undefined;
  #client: Client | undefined;
  #heldOffline = false;
  #switchedOff = false;

  /**
   * @param host Which name of this machine to reach the gateway by: the devices share nothing, not even that.
   */
  constructor(name: string, host: string, changed: () => void) {
    this.name = name;
    this.#host = host;
    this.#changed = changed;
  }

  get online(): boolean {
    return !this.#heldOffline && !this.#switchedOff;
  }

  /** Whether the demo itself keeps the device offline, for the while that it announced. */
  get heldOffline(): boolean {
    return this.#heldOffline;
  }

  get presence(): Presence {
    if (!this.online) return "offline";
    for (const feed of this.feeds.values()) if (feed.link === "lost") return "lost";
    return "live";
  }

  /** How many published events it has read. */
  get received(): number {
    let sum = 0;
    for (const { view } of this.feeds.values()) sum += view.published;
    return sum;
  }

  /** The notifications that reached it while it was asleep, newest first. */
  get notices(): readonly Notice[] {
    return onLockScreen(this.#state?.notified ?? [], this.name, this.online ? undefined : this.absence?.since);
  }

  /** Answers a question; whether the gateway was reached. */
  async answer(session: string, question: Question, choice: string): Promise<boolean> {
    const client = this.#client;
    if (!client || !this.online) return false;
    try {
      await client.session(session).answer(question.id, choice);
    } catch (error) {
      // Another device was faster, and the log tells which.
      return error instanceof WakelineError && !error.retry;
    }
    return true;
  }

  update(state: DemoState): void {
    this.#state = state;
    this.#heldOffline = state.devices.some((device) => device.name === this.name && !device.online);
    this.#settle();
  }

  /** The switch on the page. */
  toggle(): void {
    if (this.#heldOffline) return;
    this.#switchedOff = !this.#switchedOff;
    this.#settle();
  }

  #settle(): void {
    if (this.online) this.#follow();
    else for (const feed of this.feeds.values()) feed.disconnect();
    this.#note();
  }

  #follow(): void {
    const state = this.#state;
    if (!state) return;
    this.sessions = merge(this.sessions, state.sessions);
    const url = gatewayUrl(state.gateway.url, this.#host);
    if (url !== this.#client?.url) {
      for (const feed of this.feeds.values()) feed.disconnect();
      this.#client?.close();
      this.#client = connect({ url, device: this.name });
    }
    const client = this.#client;
    const wanted = toFollow(this.sessions, (session) => this.feeds.get(session)?.finished ?? false);
    for (const feed of this.feeds.values()) if (!wanted.includes(feed.session)) feed.disconnect();
    for (const session of wanted)
      this.#feed(session).connect(
        client,
        (event) => this.#receive(session, event),
        () => this.#settle(),
      );
  }

  #feed(session: string): Feed {
    const feed = this.feeds.get(session) ?? new Feed(session);
    this.feeds.set(session, feed);
    return feed;
  }

  #receive(session: string, event: WireEvent): void {
    // The laptop lies open on a desk. Only the phone is in somebody's hand, and reports that a question was seen.
    if (event.topic === "$input.requested" && this.name === "phone")
      void this.#client
        ?.session(session)
        .seen(event.offset)
        .catch(() => undefined);
    if (this.back && !event.topic.startsWith("$") && Date.parse(event.time) < this.back.at) this.back.filled += 1;
    this.#changed();
  }

  /** Notes when an absence begins and ends. */
  #note(): void {
    const here = this.presence === "live";
    if (!here && !this.absence) {
      this.absence = { since: Date.now() };
    } else if (here && this.absence) {
      this.back = { at: Date.now(), away: Date.now() - this.absence.since, filled: 0 };
      this.absence = undefined;
    }
    this.#changed();
  }
}

/** The gateway under another name of the same machine; an address elsewhere stays as it is. */
export function gatewayUrl(url: string, host: string): string {
  const parsed = new URL(url);
  if (parsed.hostname === "127.0.0.1" || parsed.hostname === "localhost") parsed.hostname = host;
  return parsed.href.replace(/\/$/, "");
}
