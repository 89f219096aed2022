/** A reading's cursor in a storage; loaded with the first reading that resumes. */

import type { State } from "./reader.ts";

/** Where cursors are kept: `localStorage`, `sessionStorage`, or anything of their shape, also with promises. */
export interface CursorStorage {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): void | Promise<void>;
  removeItem(key: string): void | Promise<void>;
}

export class Keeper {
  readonly #storage: CursorStorage;
  readonly #key: string;
  readonly #flush = () => this.flush();
  #last: string | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(storage: CursorStorage, key: string) {
    this.#storage = storage;
    this.#key = key;
    globalThis.addEventListener?.("pagehide", this.#flush);
  }

  /** Where to begin: at the stored cursor, if there is one. */
  async begin(from: string): Promise<string> {
    let kept: string | null | undefined;
    await this.#attempt(async () => {
      kept = await this.#storage.getItem(this.#key);
    });
    return kept || from;
  }

  /** Keep a cursor, a few times a second: storages of browsers are slow. */
  keep(cursor: string): void {
    this.#last = cursor;
    this.#timer ??= setTimeout(this.#flush, 100);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const last = this.#last;
    if (last !== undefined) void this.#attempt(() => this.#storage.setItem(this.#key, last));
    this.#last = undefined;
  }

  /** The reading has another state; a cursor of a session that was created again is of no use any more. */
  state(state: State): void {
    if (state.status === "refused" && state.error.code === "epoch_changed") {
      this.#last = undefined;
      void this.#attempt(() => this.#storage.removeItem(this.#key));
    }
    if (state.status === "ended" || state.status === "stopped" || state.status === "refused") {
      this.flush();
      if (state.status !== "refused") globalThis.removeEventListener?.("pagehide", this.#flush);
    }
  }

  /** A storage that is full, or that the page may not use, must not end the reading: it begins at an older cursor then. */
  async #attempt(work: () => void | Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      console.warn(`wakeline: the storage failed for ${this.#key}`, error);
    }
  }
}
