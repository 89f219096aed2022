/** A session as a conversation: messages with their values, what people were asked and answered, and how runs went. */

import type { Message, SessionEvent } from "@wakeline/client";
import { Folded } from "@wakeline/client/folded";
import { brief } from "../format.ts";

/** Pieces of one text that were published one by one. */
interface Speech {
  readonly kind: "speech";
  readonly id: string;
  readonly offset: number;
  readonly topic: string;
  readonly run: string | undefined;
  text: string;
}

/** One entry of the conversation. */
export type Entry =
  | Speech
  | { readonly kind: "message"; readonly id: string; readonly offset: number; readonly message: Message }
  | { readonly kind: "state"; readonly id: string; readonly offset: number; readonly event: SessionEvent }
  | { readonly kind: "event"; readonly id: string; readonly offset: number; readonly event: SessionEvent }
  | {
      readonly kind: "note";
      readonly id: string;
      readonly offset: number;
      readonly text: string;
      readonly mood: string;
    };

/** Events folded up to a place; going on costs what comes, going back begins again. */
export class Chat {
  #folded = new Folded();
  #taken: SessionEvent | undefined;
  #count = 0;
  #from: SessionEvent | undefined;
  /** Where each message began. */
  #began = new Map<string, number>();

  /** The conversation of the first `count` events. */
  entries(events: readonly SessionEvent[], count: number): Entry[] {
    const goesOn = this.#from === events[0] && count >= this.#count && events[this.#count - 1] === this.#taken;
    if (!goesOn) {
      this.#folded = new Folded();
      this.#began = new Map();
      this.#count = 0;
    }
    const fresh = events.slice(this.#count, count);
    for (const change of this.#folded.add(fresh)) {
      if (change.kind !== "message") continue;
      const name = nameOf(change.message);
      if (!this.#began.has(name)) this.#began.set(name, change.event.offset);
    }
    this.#from = events[0];
    this.#count = count;
    this.#taken = events[count - 1];
    return this.#entries();
  }

  #entries(): Entry[] {
    const found: Entry[] = [];
    for (const message of this.#folded.messages) {
      const offset = this.#began.get(nameOf(message)) ?? message.offset;
      found.push({ kind: "message", id: `m${nameOf(message)}`, offset, message });
    }
    for (const event of this.#folded.keyed) {
      if (event.topic.startsWith("$")) continue;
      found.push({ kind: "state", id: `k${event.topic}\n${event.key}`, offset: event.offset, event });
    }
    for (const event of this.#folded.events) {
      const { offset } = event;
      const note = noteOf(event);
      if (note) found.push({ kind: "note", id: `n${offset}`, offset, ...note });
      else if (!event.topic.startsWith("$")) found.push({ kind: "event", id: `e${offset}`, offset, event });
    }
    return joined(found.sort((one, other) => one.offset - other.offset));
  }
}

/** Pieces of one text, which many models publish as `{"text": …}`, as one entry. */
function joined(entries: readonly Entry[]): Entry[] {
  const found: Entry[] = [];
  for (const entry of entries) {
    const piece = entry.kind === "event" ? pieceOf(entry.event.data) : undefined;
    if (entry.kind !== "event" || piece === undefined) {
      found.push(entry);
      continue;
    }
    const { topic, run } = entry.event;
    const last = found.at(-1);
    if (last?.kind === "speech" && last.topic === topic && last.run === run) last.text += piece;
    else found.push({ kind: "speech", id: entry.id, offset: entry.offset, topic, run, text: piece });
  }
  return found;
}

const PIECES: ReadonlySet<string> = new Set(["text", "delta", "content", "token"]);

/** The text of data that has nothing else. */
function pieceOf(data: unknown): string | undefined {
  if (typeof data !== "object" || data === null) return undefined;
  const [[name, text] = [], ...rest] = Object.entries(data);
  return rest.length === 0 && typeof text === "string" && PIECES.has(name ?? "") ? text : undefined;
}

function nameOf({ topic, id }: Message): string {
  return `${topic}\n${id}`;
}

type Data = Readonly<Record<string, unknown>>;

const WORDS: Readonly<Record<string, string>> = {
  timed_out: "timed out",
  terminated: "was terminated",
  canceled: "was canceled",
  unknown: "is no longer known to Temporal",
};

/** One of Wakeline's own events in words, if a conversation shows it. */
function noteOf({ topic, data }: SessionEvent): { text: string; mood: string } | undefined {
  const its = (typeof data === "object" && data !== null ? data : {}) as Data;
  switch (topic) {
    case "$run.started":
      return { text: `${its.workflow_type ?? "A run"} began`, mood: "run" };
    case "$run.closed": {
      const failure = its.failure as Data | undefined;
      const status = String(its.status);
      return {
        text: `The run ${WORDS[status] ?? status}${failure ? `: ${failure.message}` : ""}`,
        mood: status === "completed" ? "good" : "bad",
      };
    }
    case "$run.continued":
      return { text: `The run continued (${its.reason})`, mood: "run" };
    case "$input.requested":
      return { text: `Asked: ${its.message ?? its.reason}`, mood: "warm" };
    case "$input.resolved":
      return { text: `${its.status}: ${brief(its.payload, 120)}${its.by ? `, by ${its.by}` : ""}`, mood: "warm" };
    case "$input.accepted":
      return { text: `${its.kind} ${its.name ?? ""}${its.by ? ` from ${its.by}` : ""}`, mood: "run" };
    case "$gap":
      return { text: `${its.missed} events are gone`, mood: "quiet" };
    case "$session.closed":
      return { text: "The session was closed", mood: "quiet" };
    default:
      return undefined;
  }
}
