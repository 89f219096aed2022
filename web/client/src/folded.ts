/** A session's present state, event by event; loaded with the first view. */

import { Grown, isObject, Keyed, type Range, rangesOf, within, writerOf } from "./fold.ts";
import type { Op, SessionEvent } from "./wire.ts";

/** A message that grows, as it is now; another object after each change. */
export interface Message {
  readonly topic: string;
  readonly id: string;
  readonly value: unknown;
  readonly complete: boolean;
  /** The offset of its last event. */
  readonly offset: number;
}

/** A run of the session, from its `$run.…` events. */
export interface RunView {
  readonly run: string;
  /** `running`, or how it ended. */
  readonly status: string;
  /** The data of `$run.started`. */
  readonly started?: Readonly<Record<string, unknown>>;
  /** The data of `$run.closed`. */
  readonly closed?: Readonly<Record<string, unknown>>;
  /** The data of the last `$run.waiting`. */
  readonly waiting?: Readonly<Record<string, unknown>>;
}

/** One change of a view. */
export type Change =
  /** Everything was replaced by the session's compact form. */
  | { readonly kind: "reset" }
  | { readonly kind: "event"; readonly event: SessionEvent }
  | { readonly kind: "message"; readonly message: Message; readonly event: SessionEvent }
  | { readonly kind: "state"; readonly topic: string; readonly key: string; readonly event: SessionEvent }
  /** Events of a failed attempt were taken back; a message without a value any more is not in `view.messages`. */
  | {
      readonly kind: "superseded";
      readonly offsets: readonly Range[];
      readonly events: readonly SessionEvent[];
      readonly messages: readonly { readonly topic: string; readonly id: string }[];
      readonly states: readonly { readonly topic: string; readonly key: string }[];
    };

const nameOf = (topic: string, name: string): string => `${topic}\n${name}`;

export class Folded {
  #events: SessionEvent[] = [];
  #shown: readonly SessionEvent[] | undefined;
  requests: ReadonlyMap<string, Readonly<Record<string, unknown>>> = new Map();
  runs: ReadonlyMap<string, RunView> = new Map();
  readonly #messages = new Map<string, { message: Message; grown: Grown }>();
  readonly #keyed = new Map<string, { topic: string; key: string; states: Keyed<SessionEvent> }>();

  get messages(): Message[] {
    return [...this.#messages.values()].map(({ message }) => message);
  }

  message(topic: string, id: string): Message | undefined {
    return this.#messages.get(nameOf(topic, id))?.message;
  }

  /** Another array after each change: a page compares it with the one before. */
  get events(): readonly SessionEvent[] {
    this.#shown ??= [...this.#events];
    return this.#shown;
  }

  get keyed(): SessionEvent[] {
    return [...this.#keyed.values()].flatMap(({ states }) => states.latest ?? []);
  }

  latest(topic: string, key: string): SessionEvent | undefined {
    return this.#keyed.get(nameOf(topic, key))?.states.latest;
  }

  /** Add the next events, and return what has changed. */
  add(events: readonly SessionEvent[]): Change[] {
    const owned = new Set<unknown>();
    return events.flatMap((event) => this.#apply(event, owned) ?? []);
  }

  #apply(event: SessionEvent, owned: Set<unknown>): Change | undefined {
    const { topic, key, message } = event;
    if (topic === "$attempt.superseded") return this.#supersede(rangesOf(event.data));
    if (topic === "$compact") return undefined;
    if (message && !event.payload && "data" in event) return this.#grow(event, message, owned);
    if (key !== undefined) return this.#put(event, key);
    this.#events.push(event);
    this.#shown = undefined;
    if (topic.startsWith("$") && isObject(event.data)) this.#note(event, event.data);
    return { kind: "event", event };
  }

  #grow(event: SessionEvent, { id, op, complete }: NonNullable<SessionEvent["message"]>, owned: Set<unknown>): Change {
    const { topic, offset } = event;
    const name = nameOf(topic, id);
    const grown = this.#messages.get(name)?.grown ?? new Grown();
    const parts = event.compact?.parts;
    if (parts) {
      for (const part of parts) grown.add(writerOf(part), part.last, !!part.complete, part.ops ?? [], owned);
    } else grown.add(writerOf(event), offset, !!complete, [[op, event.data] as Op], owned);
    const message = { topic, id, value: grown.value, complete: grown.complete, offset };
    this.#messages.set(name, { message, grown });
    return { kind: "message", message, event };
  }

  #put(event: SessionEvent, key: string): Change {
    const { topic } = event;
    const name = nameOf(topic, key);
    const entry = this.#keyed.get(name) ?? { topic, key, states: new Keyed<SessionEvent>() };
    this.#keyed.set(name, entry);
    const parts = event.compact?.parts ?? [event];
    for (const part of parts) {
      const its = "event" in part && part.event ? { ...part.event, cursor: event.cursor } : event;
      entry.states.put(writerOf(part), its);
    }
    return { kind: "state", topic, key, event };
  }

  #supersede(offsets: readonly Range[]): Change {
    const gone = within(offsets);
    const events = this.#events.filter(({ offset }) => gone(offset));
    if (events.length) {
      this.#events = this.#events.filter(({ offset }) => !gone(offset));
      this.#shown = undefined;
    }
    const messages: { topic: string; id: string }[] = [];
    for (const [name, { message, grown }] of this.#messages) {
      if (!grown.remove(gone)) continue;
      const { topic, id } = message;
      messages.push({ topic, id });
      if (grown.last < 0) this.#messages.delete(name);
      else {
        const now = { topic, id, value: grown.value, complete: grown.complete, offset: grown.last };
        this.#messages.set(name, { message: now, grown });
      }
    }
    const states: { topic: string; key: string }[] = [];
    for (const [name, { topic, key, states: held }] of this.#keyed) {
      if (!held.remove(gone)) continue;
      states.push({ topic, key });
      if (!held.latest) this.#keyed.delete(name);
    }
    return { kind: "superseded", offsets, events, messages, states };
  }

  /** Keep the open requests and the runs, from Wakeline's own events. */
  #note({ topic, run }: SessionEvent, data: Record<string, unknown>): void {
    if (topic === "$input.requested") this.requests = new Map(this.requests).set(String(data.id), data);
    else if (topic === "$input.resolved") {
      const left = new Map(this.requests);
      left.delete(String(data.request));
      this.requests = left;
    } else if (topic.startsWith("$run.") && run !== undefined) {
      const before = this.runs.get(run) ?? { run, status: "running" };
      let now = before;
      if (topic === "$run.started") now = { ...before, started: data };
      else if (topic === "$run.waiting") now = { ...before, waiting: data };
      else if (topic === "$run.closed") now = { ...before, status: String(data.status), closed: data };
      if (now !== before) this.runs = new Map(this.runs).set(run, now);
    }
  }
}
