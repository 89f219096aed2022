/** The live part of reading: one source for each session and set of topics, shared by all who read the same. */

import { type Cursor, parseCursor } from "./cursor.ts";
import type { WakelineError } from "./errors.ts";
import type { Device, PresenceChange, WireEvent } from "./wire.ts";

/** What a source reads. Readers that ask for the same share it. */
export interface Ask {
  readonly session: string;
  readonly topics?: readonly string[] | undefined;
  readonly until?: "settled" | undefined;
  readonly presence?: boolean | undefined;
  readonly device?: string | undefined;
}

/** A reader, as the hub serves it. */
export interface Listener {
  /** The source is connected: everything from the reader's cursor on will come. */
  opened(): void;
  events(events: readonly WireEvent[], cursor: string): void;
  /** The devices that are connected now. */
  presence(devices: readonly Device[]): void;
  /** Nothing follows; without an error the reader pages on from its cursor, which shows whether the session ended. */
  over(error?: WakelineError): void;
}

/** Serves readers that have caught up. */
export interface Hub {
  /** Read on from a cursor; the returned function leaves. The listener is not called before this returns. */
  join(ask: Ask, cursor: string, listener: Listener): () => void;
  /** Check every connection now: the page was shown again, or the network changed. */
  check(): void;
  /** End every connection, for example because the page is put away; readers come back by themselves. */
  drop(): void;
  close(): void;
}

/** A hub that is made when it is first needed, and again when it was lost. */
export class LateHub implements Hub {
  readonly #make: (lost: () => void) => Promise<Hub>;
  #hub: Promise<Hub> | undefined;

  constructor(make: (lost: () => void) => Promise<Hub>) {
    this.#make = make;
  }

  join(ask: Ask, cursor: string, listener: Listener): () => void {
    let leave: (() => void) | undefined;
    let left = false;
    this.#hub ??= this.#make(() => {
      this.#hub = undefined;
    });
    this.#hub.then(
      (hub) => {
        if (!left) leave = hub.join(ask, cursor, listener);
      },
      (error: WakelineError) => {
        this.#hub = undefined;
        if (!left) listener.over(error);
      },
    );
    return () => {
      left = true;
      leave?.();
    };
  }

  check(): void {
    void this.#hub?.then((hub) => hub.check());
  }

  drop(): void {
    void this.#hub?.then((hub) => hub.drop());
  }

  close(): void {
    void this.#hub?.then((hub) => hub.close());
  }
}

/** One live read; a transport fills it. */
export class Source {
  readonly ask: Ask;
  /** The transport sets this to end the read early. */
  stop: () => void = () => undefined;
  /** The transport sets this to check that its connection still works. */
  check: () => void = () => undefined;
  /** Whether its connection does not report devices, as a long-poll. */
  silent?: boolean;
  readonly #listeners = new Set<Listener>();
  readonly #present = new Map<string, Device>();
  #cursor: string;
  #at: Cursor | undefined;
  #opened = false;
  #ended = false;
  readonly #gone: () => void;

  /** Begin at a cursor; `gone` is called once, when the source has ended or its last reader has left. */
  constructor(ask: Ask, cursor: string, gone: () => void) {
    this.ask = ask;
    this.#cursor = cursor;
    this.#at = parseCursor(cursor);
    this.#gone = gone;
  }

  /** Where the transport reads on. */
  get cursor(): string {
    return this.#cursor;
  }

  /** Whether its connection was made. */
  get isOpen(): boolean {
    return this.#opened;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /**
   * Add a reader. What is below the source's cursor was passed on already, so a reader that is behind it must page on
   * first. There is no wait between the comparison and the joining, so no event falls between them.
   */
  join(cursor: string, listener: Listener): () => void {
    const theirs = parseCursor(cursor);
    const behind = theirs?.epoch !== this.#at?.epoch || (theirs?.offset ?? 0) < (this.#at?.offset ?? 0);
    let here = true;
    if (!behind) this.#listeners.add(listener);
    queueMicrotask(() => {
      if (!here) return;
      if (behind) listener.over();
      else if (this.#opened && !this.#ended) this.#greet(listener);
    });
    return () => {
      here = false;
      if (this.#listeners.delete(listener) && this.#listeners.size === 0) this.over();
    };
  }

  opened(): void {
    this.#opened = true;
    this.#each((listener) => this.#greet(listener));
  }

  events(events: readonly WireEvent[], cursor: string): void {
    this.#cursor = cursor;
    this.#at = parseCursor(cursor);
    this.#each((listener) => listener.events(events, cursor));
  }

  presence({ event, user, device }: PresenceChange): void {
    const name = JSON.stringify([user, device]);
    if (event === "join") this.#present.set(name, { user, device });
    else this.#present.delete(name);
    this.#each((listener) => listener.presence([...this.#present.values()]));
  }

  over(error?: WakelineError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#gone();
    this.stop();
    this.#each((listener) => listener.over(error));
    this.#listeners.clear();
  }

  #greet(listener: Listener): void {
    listener.opened();
    if (!this.ask.presence || this.silent) return;
    // The joins follow at once; if none does, nobody is there. Who left while the connection was away is not reported.
    const pause = this.#present.size ? 0 : 1000;
    setTimeout(() => this.#listeners.has(listener) && listener.presence([...this.#present.values()]), pause);
  }

  #each(call: (listener: Listener) => void): void {
    for (const listener of [...this.#listeners]) if (this.#listeners.has(listener)) call(listener);
  }
}
