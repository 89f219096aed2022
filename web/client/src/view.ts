/** The state of a session, kept up to date: messages that grow, keyed states, and all other events. */

import { guard } from "./errors.ts";
import type { Change, Folded, Message, RunView } from "./folded.ts";
import { type Parts, Reader, type ReaderOptions, type State } from "./reader.ts";
import type { SessionEvent } from "./wire.ts";

/** Called after each batch of changes, and when the state of the reading changes (with none). */
export type OnChange = (view: View, changes: readonly Change[]) => void;

/** A session's present state. */
export class View {
  /** A number that grows with each call of the callback. */
  version = 0;
  readonly #reader: Reader;
  readonly #changed: OnChange;
  #make: (() => Folded) | undefined;
  #folded: Folded | undefined;

  constructor(parts: Parts, options: ReaderOptions, changed: OnChange) {
    this.#changed = changed;
    // Pages that read plain events do without this part.
    const from = async () => {
      const { Folded } = await import("./folded.ts");
      this.#make = () => new Folded();
      return options.from();
    };
    const sink = {
      events: (events: readonly SessionEvent[], whole: boolean) => this.#take(events, whole),
      state: () => this.#tell([]),
    };
    this.#reader = new Reader(parts, { ...options, from, compact: true }, sink);
  }

  /** Connecting, catching up, live, offline, ended, refused, or stopped. */
  get state(): State {
    return this.#reader.state;
  }

  /** The cursor after everything that is in the view. */
  get cursor(): string {
    return this.#reader.position;
  }

  get epoch(): string | undefined {
    return this.#reader.epoch;
  }

  /** The messages that grow, in the order of their first events. */
  get messages(): Message[] {
    return this.#folded?.messages ?? [];
  }

  message(topic: string, id: string): Message | undefined {
    return this.#folded?.message(topic, id);
  }

  /** The latest event of each topic and key. */
  get keyed(): SessionEvent[] {
    return this.#folded?.keyed ?? [];
  }

  latest(topic: string, key: string): SessionEvent | undefined {
    return this.#folded?.latest(topic, key);
  }

  /** Events that are neither pieces of messages nor keyed, and count; in order. */
  get events(): readonly SessionEvent[] {
    return this.#folded?.events ?? [];
  }

  /** The data of the `$input.requested` of each open request for input, by its id. */
  get requests(): ReadonlyMap<string, Readonly<Record<string, unknown>>> {
    return this.#folded?.requests ?? new Map();
  }

  /** The runs by their name in events, in the order in which they began. */
  get runs(): ReadonlyMap<string, RunView> {
    return this.#folded?.runs ?? new Map();
  }

  /** End the reading; what was read stays. */
  close(): void {
    this.#reader.close();
  }

  #take(events: readonly SessionEvent[], whole: boolean): void {
    if (whole || !this.#folded) this.#folded = this.#make?.();
    const changes = this.#folded?.add(events) ?? [];
    this.#tell(whole ? [{ kind: "reset" }, ...changes] : changes);
  }

  #tell(changes: readonly Change[]): void {
    this.version += 1;
    guard(() => this.#changed(this, changes));
  }
}
