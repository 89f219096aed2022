/** The events of a session that the page holds: the end of the log as it grows, or a part of it that was sought. */

import { signal } from "@preact/signals";
import type { Client, Page, SessionEvent, SessionInfo, State, WakelineError } from "@wakeline/client";

/** Of a longer log the end is read; the rest is read when it is asked for. */
export const MOST_AT_FIRST = 5000;
const MOST = 20_000;
const PAGE = 1000;

export class SessionLog {
  /** Grows with each change of `events`. */
  readonly version = signal(0);
  readonly state = signal<State>({ status: "connecting" });
  readonly error = signal<WakelineError | undefined>(undefined);
  readonly record = signal<SessionInfo | undefined>(undefined);
  /** Whether the end of the log is read as it grows. */
  readonly live = signal(true);
  events: SessionEvent[] = [];
  readonly #client: Client;
  readonly #name: string;
  #stop = new AbortController();
  #fresh: SessionEvent[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(client: Client, name: string) {
    this.#client = client;
    this.#name = name;
  }

  /** Read the end of the log and what follows, as it comes. */
  follow(): void {
    const session = this.#client.session(this.#name);
    const { signal } = this.#begin(true);
    const unwatch = session.onState((state) => {
      if (!signal.aborted) this.state.value = state;
    });
    signal.addEventListener("abort", unwatch);
    void (async () => {
      try {
        const record = (await session.describe(signal)) as SessionInfo;
        if (signal.aborted) return;
        this.record.value = record;
        const many = record.next_offset - record.first_offset > MOST_AT_FIRST;
        for await (const event of session.events({ from: many ? `tail:${MOST_AT_FIRST}` : "beginning", signal })) {
          this.#fresh.push(event);
          this.#timer ??= setTimeout(() => this.#flush(), this.events.length > 3000 ? 250 : 50);
        }
      } catch (thrown) {
        if (!signal.aborted) this.error.value = thrown as WakelineError;
      }
    })();
  }

  /** Read a part of the log that begins at an offset, or at a time (`time:…`). */
  async seek(from: number | string): Promise<number | undefined> {
    const record = this.record.peek();
    if (!record) return undefined;
    if (typeof from === "number" && this.#holds(from)) return from;
    const { signal } = this.#begin(false);
    try {
      const position = typeof from === "number" ? cursorAt(record.epoch, Math.max(from, record.first_offset)) : from;
      const page = await this.#client.session(this.#name).page({ from: position, limit: MOST_AT_FIRST, signal });
      this.#take(page, record.epoch);
      return this.events[0]?.offset;
    } catch (thrown) {
      if (!signal.aborted) this.error.value = thrown as WakelineError;
      return undefined;
    }
  }

  /** Read the events before the first one that is held. */
  async earlier(): Promise<void> {
    const record = this.record.peek();
    const first = this.events[0];
    if (!record || !first) return;
    try {
      const before = cursorAt(record.epoch, first.offset);
      const page = await this.#client.session(this.#name).page({ before, limit: PAGE });
      if (this.events[0] !== first) return;
      const older = page.events.map((event) => ({ ...event, cursor: cursorAt(record.epoch, event.offset + 1) }));
      this.events = [...older, ...this.events];
      this.version.value += 1;
    } catch (thrown) {
      this.error.value = thrown as WakelineError;
    }
  }

  /** Whether there are events before the first one that is held. */
  get hasEarlier(): boolean {
    const first = this.events[0]?.offset ?? 0;
    return first > (this.record.value?.first_offset ?? 0);
  }

  close(): void {
    this.#stop.abort();
    clearTimeout(this.#timer);
  }

  #begin(live: boolean): AbortController {
    this.close();
    this.#timer = undefined;
    this.#fresh = [];
    this.#stop = new AbortController();
    this.live.value = live;
    this.error.value = undefined;
    this.events = [];
    this.version.value += 1;
    return this.#stop;
  }

  #holds(offset: number): boolean {
    const first = this.events[0];
    const last = this.events.at(-1);
    return !!first && !!last && first.offset <= offset && offset <= last.offset;
  }

  #take(page: Page, epoch: string): void {
    this.events = page.events.map((event) => ({ ...event, cursor: cursorAt(epoch, event.offset + 1) }));
    this.version.value += 1;
  }

  #flush(): void {
    this.#timer = undefined;
    this.events.push(...this.#fresh);
    this.#fresh = [];
    // The page keeps the latest of a log that grows for days.
    if (this.events.length > MOST) this.events = this.events.slice(-MOST / 2);
    this.version.value += 1;
  }
}

/** A cursor, as this gateway makes it: the page is served by it, and so is of its version. */
export function cursorAt(epoch: string, offset: number): string {
  return `${epoch}-${offset}`;
}
