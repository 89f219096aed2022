import { answerCall, deliver, seenCall } from "./calls.ts";
import { merge, toFollow } from "./choose.ts";
import { Feed } from "./feed.ts";
import { onLockScreen, type Question } from "./question.ts";
import type { DemoState, Notice, SessionInfo, WireEvent } from "./wire.ts";

/** `lost`: online, but a stream that was open has broken and the browser is on its way back. */
export type Presence = "live" | "lost" | "offline";

/** A time without a connection: since when, and how much had been sent by then. */
export interface Absence {
  readonly since: number;
  readonly sent: number;
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
  received = 0;
  #host: string;
  #changed: () => void;
  #state: DemoState | undefined;
  #url = "";
  #heldOffline = false;
  #switchedOff = false;

  /**
   * @param host Which name of this machine to reach the gateway by. Browsers allow six connections a host name, so each
   *     device has its own.
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

  /** The next offset of each session it has read from. */
  positions(): ReadonlyMap<string, number> {
    return new Map([...this.feeds.values()].map((feed) => [feed.session, feed.view.ledger.next]));
  }

  /** The notifications that reached it while it was asleep, newest first. */
  get notices(): readonly Notice[] {
    return onLockScreen(this.#state?.notified ?? [], this.name, this.online ? undefined : this.absence?.since);
  }

  /** Answers a question; whether the gateway was reached. */
  answer(session: string, question: Question, choice: string): Promise<boolean> {
    return deliver(this.#url, answerCall(session, question.id, choice, this.name), () => this.online);
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
    if (url !== this.#url) for (const feed of this.feeds.values()) feed.disconnect();
    this.#url = url;
    const wanted = toFollow(this.sessions, (session) => this.feeds.get(session)?.finished ?? false);
    for (const feed of this.feeds.values()) if (!wanted.includes(feed.session)) feed.disconnect();
    for (const session of wanted)
      this.#feed(session).connect(
        (cursor) => new EventSource(eventsUrl(url, session, cursor)),
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
      void deliver(this.#url, seenCall(session, this.name, this.#feed(session).cursor), () => this.online);
    // What Wakeline itself says of a run was not sent by the workflow, and is not held against what was.
    if (!event.topic.startsWith("$")) this.received += 1;
    if (this.back && Date.parse(event.time) < this.back.at) this.back.filled += 1;
    this.#changed();
  }

  /** Notes when an absence begins and ends. */
  #note(): void {
    const here = this.presence === "live";
    if (!here && !this.absence) {
      this.absence = { since: Date.now(), sent: this.#state?.counter.sent ?? 0 };
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

export function eventsUrl(url: string, session: string, cursor: string): string {
  return `${url}/v1/sessions/${encodeURIComponent(session)}/events?from=${encodeURIComponent(cursor)}&until=settled`;
}
