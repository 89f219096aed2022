/** The events of a session that the page holds: the end of the log as it grows, or a part of it that was sought. */

import { batch, signal } from "@preact/signals";
import type { Client, Session, SessionEvent, SessionInfo, State, WakelineError, WireEvent } from "@wakeline/client";

/** Of a longer log the end is read; the rest is read when it is asked for. */
export const MOST_AT_FIRST = 5000;
const MOST = 20_000;
const PAGE = 1000;
const RETRY_MS = 2000;

export class SessionLog {
  /** Grows with each change of `events`. */
  readonly version = signal(0);
  readonly state = signal<State>({ status: "connecting" });
  readonly error = signal<WakelineError | undefined>(undefined);
  readonly record = signal<SessionInfo | undefined>(undefined);
  /** Whether the end of the log is read as it grows. */
  readonly live = signal(true);
  events: SessionEvent[] = [];
  readonly #session: Session;
  #stop = new AbortController();
  #fresh: SessionEvent[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether the first event that is held is the first one that there is. */
  #whole = false;
  /** Requests for the events beside those that are held, so that none is made twice at a time. */
  #earlier: Promise<boolean> | undefined;
  #later: Promise<boolean> | undefined;

  constructor(client: Client, name: string) {
    this.#session = client.session(name);
  }

  /** Read the end of the log and what follows, as it comes. */
  follow(): void {
    const signal = this.#begin(true);
    this.#hold([], false);
    void this.#follow(signal);
  }

  /** Whether everything that the page is to show has been read, so that nothing means that there is nothing. */
  get isRead(): boolean {
    const { status } = this.state.value;
    if (this.error.value) return false;
    return this.events.length > 0 || !this.live.value || status === "live" || status === "ended";
  }

  /**
   * Have the event at an offset, or the first one since a time (`time:…`), with those around it. `found` is called with
   * its offset at once when they are there; with that of the last event, if the log ends before.
   */
  async seek(to: number | string, found: (offset: number) => void): Promise<void> {
    const held = this.#heldAt(to);
    if (held !== undefined) {
      found(held);
      return;
    }
    const signal = this.#begin(false);
    await this.#try(signal, async () => {
      const { epoch, first_offset, next_offset } = await this.#describe(signal);
      const from = typeof to === "number" ? cursorAt(epoch, Math.max(first_offset, Math.min(to, next_offset))) : to;
      const page = await this.#session.page({ from, limit: MOST_AT_FIRST, signal });
      const older = await this.#session.page({ before: page.from ?? page.cursor, limit: PAGE, signal });
      const at = page.events[0] ?? older.events.at(-1);
      batch(() => {
        this.#hold(made(epoch, [...older.events, ...page.events]), older.previous === null);
        if (at) found(at.offset);
      });
      if (page.up_to_date) this.#goOn(page.cursor, signal);
    });
  }

  /** Read the events before the first one that is held; return whether there were some. */
  earlier(): Promise<boolean> {
    this.#earlier ??= this.#before().finally(() => {
      this.#earlier = undefined;
    });
    return this.#earlier;
  }

  /** Read the events after the last one that is held, unless they come by themselves; return whether there were some. */
  later(): Promise<boolean> {
    this.#later ??= this.#after().finally(() => {
      this.#later = undefined;
    });
    return this.#later;
  }

  /** Whether there are events before the first one that is held. */
  get hasEarlier(): boolean {
    const first = this.events[0]?.offset ?? 0;
    return !this.#whole && first > (this.record.value?.first_offset ?? 0);
  }

  /** Whether there may be events after the last one that is held, which do not come by themselves. */
  get hasLater(): boolean {
    return !this.live.value && this.events.length > 0;
  }

  close(): void {
    this.#stop.abort();
    clearTimeout(this.#timer);
  }

  /** Read the end of the log, again and again while the gateway cannot be reached or the session does not exist. */
  async #follow(signal: AbortSignal): Promise<void> {
    for (;;) {
      let failed: WakelineError | undefined;
      try {
        const record = await this.#describe(signal);
        const many = record.next_offset - record.first_offset > MOST_AT_FIRST;
        this.error.value = undefined;
        this.#fresh = [];
        this.#hold([], !many);
        await this.#tail(many ? `tail:${MOST_AT_FIRST}` : "beginning", signal);
      } catch (thrown) {
        failed = thrown as WakelineError;
      }
      if (signal.aborted || !failed) return;
      this.error.value = failed;
      // After 401 the next request waits for another token.
      if (!failed.retry && failed.status !== 401 && failed.status !== 404) return;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      if (signal.aborted) return;
    }
  }

  async #before(): Promise<boolean> {
    const first = this.events[0];
    const { signal } = this.#stop;
    if (!first || !this.hasEarlier) return false;
    const found = await this.#try(signal, async () => {
      const epoch = this.record.peek()?.epoch ?? "";
      const page = await this.#session.page({ before: cursorAt(epoch, first.offset), limit: PAGE, signal });
      // A log that is read live may have let go of its first events in the meantime.
      if (this.events[0] !== first) return false;
      const events = [...made(epoch, page.events), ...this.events];
      if (events.length > MOST) this.#begin(false);
      this.#hold(events.slice(0, MOST), page.previous === null);
      return page.events.length > 0;
    });
    return found === true;
  }

  async #after(): Promise<boolean> {
    const last = this.events.at(-1);
    const { signal } = this.#stop;
    if (!last || !this.hasLater) return false;
    const found = await this.#try(signal, async () => {
      const epoch = this.record.peek()?.epoch ?? "";
      const page = await this.#session.page({ from: last.cursor, limit: PAGE, signal });
      const events = [...this.events, ...made(epoch, page.events)];
      this.#hold(events.slice(-MOST), this.#whole && events.length <= MOST);
      if (page.up_to_date) this.#goOn(page.cursor, signal);
      return page.events.length > 0;
    });
    return found === true;
  }

  /** The part that is held has come to the end of the log: read what follows, as it comes. */
  #goOn(cursor: string, signal: AbortSignal): void {
    this.live.value = true;
    void this.#try(signal, () => this.#tail(cursor, signal));
  }

  async #tail(from: string, signal: AbortSignal): Promise<void> {
    const unwatch = this.#session.onState((state) => {
      if (!signal.aborted) this.state.value = state;
    });
    signal.addEventListener("abort", unwatch);
    for await (const event of this.#session.events({ from, signal })) {
      this.#fresh.push(event);
      this.#timer ??= setTimeout(() => this.#flush(), this.events.length > 3000 ? 250 : 50);
    }
  }

  /** End what is being read; the events stay until others are there. */
  #begin(live: boolean): AbortSignal {
    this.close();
    this.#timer = undefined;
    this.#fresh = [];
    this.#stop = new AbortController();
    this.live.value = live;
    this.error.value = undefined;
    if (live) this.state.value = { status: "connecting" };
    return this.#stop.signal;
  }

  #hold(events: SessionEvent[], whole: boolean): void {
    this.events = events;
    this.#whole = whole;
    this.version.value += 1;
  }

  async #try<T>(signal: AbortSignal, act: () => Promise<T>): Promise<T | undefined> {
    try {
      const done = await act();
      if (!signal.aborted) this.error.value = undefined;
      return done;
    } catch (thrown) {
      if (!signal.aborted) this.error.value = thrown as WakelineError;
      return undefined;
    }
  }

  async #describe(signal: AbortSignal): Promise<SessionInfo> {
    this.record.value = await this.#session.describe(signal);
    return this.record.value;
  }

  /** The offset of what is sought, if it is among the events that are held. */
  #heldAt(to: number | string): number | undefined {
    const first = this.events[0];
    const last = this.events.at(-1);
    if (!first || !last) return undefined;
    if (typeof to === "number") {
      if (to > last.offset && this.live.peek()) return last.offset;
      return first.offset <= to && to <= last.offset ? to : undefined;
    }
    const time = Date.parse(to.slice("time:".length));
    if (time < Date.parse(first.time)) return undefined;
    const found = this.events.find((event) => Date.parse(event.time) >= time);
    return (found ?? (this.live.peek() ? last : undefined))?.offset;
  }

  #flush(): void {
    this.#timer = undefined;
    const events = [...this.events, ...this.#fresh];
    this.#fresh = [];
    // The page keeps the latest of a log that grows for days.
    if (events.length > MOST) this.#hold(events.slice(-MOST / 2), false);
    else this.#hold(events, this.#whole);
  }
}

/** Events with the cursors after them. */
function made(epoch: string, events: readonly WireEvent[]): SessionEvent[] {
  return events.map((event) => ({ ...event, cursor: cursorAt(epoch, event.offset + 1) }));
}

/** A cursor, as this gateway makes it: the page is served by it, and so is of its version. */
export function cursorAt(epoch: string, offset: number): string {
  return `${epoch}-${offset}`;
}
