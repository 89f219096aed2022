/** Readings that components share: opened with the first one that needs them, closed after the last. */

import type { Client, State } from "@wakeline/client";

/** What a reading amounts to at one moment; another object after each change. */
export interface Snapshot<T> {
  readonly state: State;
  readonly value: T;
}

/** Starts a reading, which calls `changed` after each change. */
export type Open<T> = (changed: () => void) => { read(): Snapshot<T>; close(): void };

/** A reading outlives its last component for so long: StrictMode and navigation mount again at once. */
const LINGER_MS = 1_000;
/** Components render at most so often, also where a page that is not shown has no animation frames. */
const FRAME_MS = 16;

export class Store<T> {
  snapshot: Snapshot<T>;
  readonly #open: Open<T>;
  readonly #closed: () => void;
  readonly #listeners = new Set<() => void>();
  #reading: ReturnType<Open<T>> | undefined;
  #frame: ReturnType<typeof setTimeout> | undefined;
  #closing: ReturnType<typeof setTimeout> | undefined;

  constructor(none: Snapshot<T>, open: Open<T>, closed: () => void) {
    this.snapshot = none;
    this.#open = open;
    this.#closed = closed;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    clearTimeout(this.#closing);
    this.#listeners.add(listener);
    this.#reading ??= this.#open(() => this.#changed());
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#closing = setTimeout(() => this.#close(), LINGER_MS);
    };
  };

  #changed(): void {
    this.#frame ??= setTimeout(() => {
      this.#frame = undefined;
      if (!this.#reading) return;
      const before = this.snapshot.state;
      this.snapshot = this.#reading.read();
      warn(before, this.snapshot.state);
      for (const listener of [...this.#listeners]) listener();
    }, FRAME_MS);
  }

  #close(): void {
    clearTimeout(this.#frame);
    this.#frame = undefined;
    this.#reading?.close();
    this.#reading = undefined;
    this.#closed();
  }
}

/** Write a refusal to the console: components that render no state would show nothing of it. */
function warn(before: State, now: State): void {
  if (now.status !== "refused" || before.status === "refused") return;
  console.warn(`wakeline: ${now.error.code}: ${now.error.message} ${now.error.hint}`);
}

const stores = new WeakMap<Client, Map<string, Store<unknown>>>();

/** The store of a client under a key, if there is one. */
export function knownStore<T>(client: Client, key: string): Store<T> | undefined {
  return stores.get(client)?.get(key) as Store<T> | undefined;
}

/** The store of a client under a key; made when there is none. */
export function storeOf<T>(client: Client, key: string, none: Snapshot<T>, open: Open<T>): Store<T> {
  const known = stores.get(client) ?? new Map<string, Store<unknown>>();
  stores.set(client, known);
  const there = known.get(key) as Store<T> | undefined;
  if (there) return there;
  const made: Store<T> = new Store(none, open, () => {
    if (known.get(key) === (made as Store<unknown>)) known.delete(key);
  });
  known.set(key, made as Store<unknown>);
  return made;
}
