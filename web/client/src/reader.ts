/** One reading of a session: every event once, in order, through any disconnect, to a certain end. */

import { type Cursor, formatCursor, parseCursor } from "./cursor.ts";
import { broken, type WakelineError } from "./errors.ts";
import { type Http, lost, sessionPath } from "./http.ts";
import type { Ask, Hub } from "./live.ts";
import type { Alarm } from "./timing.ts";
import { Backoff } from "./timing.ts";
import type { Device, SessionEvent, SessionInfo, WireEvent, WirePage } from "./wire.ts";

/** The state of a reading. */
export type State =
  | { readonly status: "connecting" }
  /** Reading the log; `progress` from 0 to 1. */
  | { readonly status: "catching up"; readonly progress: number }
  | { readonly status: "live" }
  /** The gateway cannot be reached; the client retries. */
  | { readonly status: "offline"; readonly error: WakelineError }
  /** No more events follow; `run` is how the last run ended, if there was one. */
  | { readonly status: "ended"; readonly reason: "settled" | "closed"; readonly run?: string }
  /** The gateway refuses; with `retry` the client tries again, and otherwise the reading is over. */
  | { readonly status: "refused"; readonly error: WakelineError; readonly retry: boolean }
  /** The page itself ended the reading. */
  | { readonly status: "stopped" };

/** Where a reading's parts come from; one for each client. */
export interface Parts {
  readonly http: Http;
  readonly hub: Hub;
  readonly alarm: Alarm;
  /** Resolves while the page may use the network. */
  awake(): Promise<void>;
  /** Aborted, with the error that a write then fails with, when the client is closed. */
  readonly closing: AbortSignal;
}

export interface Sink {
  /** A batch of events; with `whole` they are the session's compact form, and replace everything before. */
  events(events: readonly SessionEvent[], whole: boolean): void;
  /** A promise to wait for before more events are read; none if there is room. */
  room?(): Promise<void> | undefined;
  presence?(devices: readonly Device[]): void;
  state(state: State): void;
}

export interface ReaderOptions extends Ask {
  /** Any form of `from`, perhaps from a storage; called again until it has one. */
  readonly from: () => string | Promise<string>;
  readonly compact?: boolean | undefined;
  readonly waitForStart?: boolean | undefined;
  readonly page?: number;
}

const BROKEN_MOST = 3;
const LASTING_MS = 5_000;

export class Reader {
  /** Where the next request reads on: any form of `from`, and a cursor from the first answer on. */
  position = "";
  readonly #parts: Parts;
  readonly #ask: Ask;
  readonly #options: ReaderOptions;
  readonly #sink: Sink;
  readonly #backoff: Backoff;
  readonly #stop = new AbortController();
  #at: Cursor | undefined;
  #state: State = { status: "connecting" };
  #began = 0;
  #end: number | undefined;
  #filtered: boolean;
  /** Until the gateway has answered: a session that is gone after that was deleted, and is not to be created again. */
  #waits: boolean | undefined;
  #broken = 0;
  #lastGap = "";
  #run: string | undefined;
  #opened = 0;

  constructor(parts: Parts, options: ReaderOptions, sink: Sink) {
    const { session, topics, until, presence, device } = options;
    this.#waits = options.waitForStart;
    this.#parts = parts;
    this.#options = options;
    this.#ask = { session, topics, until, presence, device };
    this.#sink = sink;
    this.#backoff = new Backoff(parts.http.timing.pause);
    this.#filtered = topics !== undefined;
    void this.#read();
  }

  get state(): State {
    return this.#state;
  }

  /** The session's epoch, once it is known. */
  get epoch(): string | undefined {
    return this.#at?.epoch;
  }

  close(): void {
    this.#stop.abort();
    this.#become({ status: "stopped" });
  }

  async #read(): Promise<void> {
    while (!isOver(this.#state)) {
      const before = this.position;
      let least = 0;
      let failed = false;
      this.#opened = 0;
      try {
        await this.#parts.awake();
        if (!this.position) {
          this.position = await this.#options.from();
          this.#at = parseCursor(this.position);
          this.#began = this.#at?.offset ?? 0;
        }
        const end = await this.#catchUp();
        if (end) await this.#finish(end);
        else if (!isOver(this.#state)) await this.#live();
      } catch (error) {
        failed = true;
        least = this.#failed(error);
      }
      if (isOver(this.#state)) return;
      const moved = this.position !== before;
      if (moved || (this.#opened && Date.now() - this.#opened > LASTING_MS)) this.#backoff.reset();
      // A connection that ends again and again without an event is not made in a loop.
      if (failed || !moved) await this.#parts.alarm.sleep(least + this.#backoff.next(), this.#stop.signal);
    }
  }

  /** Read pages until there are no more; return the end of the session if this was it. */
  async #catchUp(): Promise<"settled" | "closed" | undefined> {
    const { topics, device, until, session } = this.#ask;
    const { page: limit } = this.#options;
    const { signal } = this.#stop;
    while (!isOver(this.#state)) {
      await this.#sink.room?.();
      // The compact form comes whole, and only from the beginning.
      const compact = this.#options.compact && !this.#at?.offset;
      const query = {
        from: this.position,
        topics: topics?.join(","),
        device,
        limit: compact ? undefined : limit,
        view: compact ? "compact" : undefined,
        wait_for_start: this.#waits || undefined,
      };
      const page = await this.#parts.http.call<WirePage>("GET", sessionPath(session, "events"), { query, signal });
      if (isOver(this.#state)) return undefined;
      this.#takePage(page, !!compact);
      if (!page.up_to_date) {
        await this.#report();
        continue;
      }
      if (page.closed) return "closed";
      if (page.settled && until) return "settled";
      return undefined;
    }
    return undefined;
  }

  #takePage(page: WirePage, compact: boolean): void {
    const from = parseCursor(page.from ?? "");
    if (!from || !Array.isArray(page.events)) throw broken("expected a page of events");
    const whole = compact && from.offset === 0;
    this.#waits = false;
    if (!this.#at) {
      this.#at = from;
      this.#began = from.offset;
    }
    if (whole) {
      const end = parseCursor(page.cursor);
      if (!end || end.epoch !== from.epoch) throw broken(`expected a cursor, got ${page.cursor}`);
      this.#at = end;
      this.position = page.cursor;
      this.#pass(page.events, true, formatCursor(from));
    } else {
      this.#accept(page.events, page.cursor);
    }
  }

  /** Pass on the events that come next; throw if one is missing. */
  #accept(events: readonly WireEvent[], cursor: string): void {
    const next = parseCursor(cursor);
    const at = this.#at;
    if (!next || !at) throw broken(`expected a cursor, got ${cursor}`);
    if (next.epoch !== at.epoch) throw broken(`expected epoch ${at.epoch}, got ${next.epoch}`);
    let { offset } = at;
    const fresh: WireEvent[] = [];
    for (const event of events) {
      if (event.offset < offset) continue;
      if (event.offset > offset && event.topic !== "$gap") this.#missing(offset, event.offset);
      offset = event.offset + 1;
      fresh.push(event);
    }
    if (next.offset > offset) this.#missing(offset, next.offset);
    this.#at = { epoch: at.epoch, offset: Math.max(offset, next.offset) };
    this.position = formatCursor(this.#at);
    this.#broken = 0;
    if (fresh.length) this.#pass(fresh, false);
  }

  #missing(wanted: number, got: number): void {
    if (this.#filtered) return;
    const gap = `expected offset ${wanted}, got ${got}`;
    // A token for some topics filters as well, and may not be readable here: the same answer again is the gateway's.
    if (this.#lastGap === gap && this.#parts.http.tokens.mayFilter) this.#filtered = true;
    else {
      this.#lastGap = gap;
      throw broken(gap);
    }
  }

  #pass(events: readonly WireEvent[], whole: boolean, cursor?: string): void {
    const epoch = this.#at?.epoch ?? "";
    for (const { topic, data } of events) {
      if (topic === "$run.closed") this.#run = String((data as { status?: unknown })?.status ?? "unknown");
      else if (topic === "$run.started") this.#run = undefined;
    }
    const made = events.map((event) => ({
      ...event,
      cursor: cursor ?? formatCursor({ epoch, offset: event.offset + 1 }),
    }));
    this.#sink.events(made, whole);
  }

  /** Report how much of the log has been read. */
  async #report(): Promise<void> {
    this.#end ??= (await this.#info()).next_offset;
    const offset = this.#at?.offset ?? 0;
    const progress = Math.min(1, (offset - this.#began) / Math.max(1, this.#end - this.#began));
    this.#become({ status: "catching up", progress });
  }

  /** Read live until the source is over, or the sink is full. */
  #live(): Promise<void> {
    this.#end = undefined;
    this.#began = this.#at?.offset ?? 0;
    const { signal } = this.#stop;
    return new Promise((resolve, reject) => {
      const over = (error?: unknown) => {
        leave();
        signal.removeEventListener("abort", stopped);
        if (error) reject(error);
        else resolve();
      };
      const stopped = () => over();
      const leave = this.#parts.hub.join(this.#ask, this.position, {
        opened: () => {
          this.#opened = Date.now();
          this.#become({ status: "live" });
        },
        events: (events, cursor) => {
          try {
            this.#accept(events, cursor);
            // Unread events wait at the gateway: the reader leaves, and pages on when there is room again.
            if (this.#sink.room?.()) over();
          } catch (error) {
            over(error);
          }
        },
        presence: (devices) => this.#sink.presence?.(devices),
        over,
      });
      signal.addEventListener("abort", stopped);
      if (signal.aborted) stopped();
    });
  }

  async #finish(reason: "settled" | "closed"): Promise<void> {
    const run = this.#run ?? (await this.#info()).runs.at(-1)?.status;
    this.#become({ status: "ended", reason, ...(run !== undefined && { run }) });
  }

  #info(): Promise<SessionInfo> {
    return this.#parts.http.call("GET", sessionPath(this.#ask.session), { signal: this.#stop.signal });
  }

  /** Report a failure; return the least number of milliseconds before the next attempt. */
  #failed(thrown: unknown): number {
    const error = lost(thrown);
    const { http } = this.#parts;
    if (error.details.silent) http.doubt();
    if (error.code === "stream_broken") {
      this.#broken += 1;
      if (this.#broken < BROKEN_MOST) return 0;
    }
    // A page that authenticates by a cookie gets a fresh one by itself: an expired token ends nothing.
    const expired = error.code === "token_expired" || (error.code === "token_missing" && this.#at !== undefined);
    const retry = error.retry || (expired && !http.tokens.isFixed);
    // Without a network the function that returns tokens fails as well.
    const offline = error.code === "unavailable" || globalThis.navigator?.onLine === false;
    this.#become(retry && offline ? { status: "offline", error } : { status: "refused", error, retry });
    return error.retryAfter * 1000;
  }

  #become(state: State): void {
    if (isOver(this.#state)) return;
    const { status } = this.#state;
    this.#state = state;
    if (status !== state.status || status !== "live") this.#sink.state(state);
  }
}

/** Whether nothing follows any more. */
export function isOver(state: State): boolean {
  return state.status === "ended" || state.status === "stopped" || (state.status === "refused" && !state.retry);
}
