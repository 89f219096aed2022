/** A session's events as an async iterator that reads no faster than they are used. */

import type { WakelineError } from "./errors.ts";
import { isOver, type Parts, Reader, type ReaderOptions, type State } from "./reader.ts";
import type { SessionEvent } from "./wire.ts";

/** Unread events, in batches as they came: over one of these limits the client reads no further. */
const MOST_EVENTS = 1000;
const MOST_BATCHES = 64;

/** Told of the state of a reading, and of the cursor after each event that was used. */
export interface Observer {
  state(state: State): void;
  readonly used?: ((cursor: string) => void) | undefined;
}

export class Events implements AsyncIterableIterator<SessionEvent, undefined> {
  readonly #reader: Reader;
  readonly #observer: Observer;
  readonly #batches: SessionEvent[][] = [];
  #at = 0;
  #count = 0;
  #used: SessionEvent | undefined;
  #error: WakelineError | undefined;
  #waiting: (() => void) | undefined;
  /** Resolves when there is room again, while there is none. */
  #room: Promise<void> | undefined;
  #open: () => void = () => undefined;

  constructor(parts: Parts, options: ReaderOptions, observer: Observer, signal?: AbortSignal) {
    this.#observer = observer;
    this.#reader = new Reader(
      parts,
      { ...options, page: 500 },
      {
        events: (events) => this.#take(events),
        room: () => this.#full(),
        state: (state) => this.#become(state),
      },
    );
    const stop = () => this.close();
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  }

  /** Connecting, catching up, live, offline, ended, refused, or stopped. */
  get state(): State {
    return this.#reader.state;
  }

  get epoch(): string | undefined {
    return this.#reader.epoch;
  }

  /** The next event; `done` at the session's end. Throws a `WakelineError` if the gateway refuses for good. */
  async next(): Promise<IteratorResult<SessionEvent, undefined>> {
    this.#commit();
    for (;;) {
      const event = this.#batches[0]?.[this.#at];
      if (event) {
        this.#advance();
        this.#used = event;
        return { done: false, value: event };
      }
      if (this.#error) {
        const error = this.#error;
        this.#error = undefined;
        throw error;
      }
      if (isOver(this.state)) return { done: true, value: undefined };
      if (this.#waiting) throw new TypeError("expected one next() at a time; make an iterator per reader");
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
      this.#waiting = undefined;
    }
  }

  async return(): Promise<IteratorResult<SessionEvent, undefined>> {
    this.#commit();
    this.close();
    return { done: true, value: undefined };
  }

  /** End the reading and drop what was not read. */
  close(): void {
    this.#batches.length = 0;
    this.#count = 0;
    this.#error = undefined;
    this.#reader.close();
    this.#waiting?.();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The event before was used: the next one is asked for. */
  #commit(): void {
    if (this.#used) this.#observer.used?.(this.#used.cursor);
    this.#used = undefined;
  }

  #advance(): void {
    this.#at += 1;
    this.#count -= 1;
    if (this.#at === this.#batches[0]?.length) {
      this.#batches.shift();
      this.#at = 0;
    }
    if (this.#count <= MOST_EVENTS / 4 && this.#batches.length <= MOST_BATCHES / 4) {
      this.#room = undefined;
      this.#open();
    }
  }

  #take(events: readonly SessionEvent[]): void {
    if (events.length === 0) return;
    this.#batches.push([...events]);
    this.#count += events.length;
    this.#waiting?.();
  }

  #full(): Promise<void> | undefined {
    if (this.#room) return this.#room;
    if (this.#count < MOST_EVENTS && this.#batches.length < MOST_BATCHES) return undefined;
    const promise = new Promise<void>((open) => {
      this.#open = open;
    });
    this.#room = promise;
    return promise;
  }

  #become(state: State): void {
    if (state.status === "refused" && !state.retry) this.#error = state.error;
    if (isOver(state)) {
      this.#open();
      this.#waiting?.();
    }
    this.#observer.state(state);
  }
}
