/** The fold: what a session's events amount to, by the rules of PROTOCOL.md §2 and §4. */

import type { Op, WireEvent } from "./wire.ts";

/** First and last offset of superseded events. */
export type Range = readonly [first: number, last: number];

/** Consecutive operations of one writer; they are superseded together. */
interface Segment {
  readonly writer: string;
  last: number;
  complete: boolean;
  /** What the message amounted to after it, if it is the first. */
  base?: unknown;
  ops: Op[];
}

/** A message that grows, as its remaining segments and the value that they make. */
export class Grown {
  value: unknown = null;
  #segments: Segment[] = [];

  /** The offset of its last event; -1 if nothing of it counts any more. */
  get last(): number {
    return this.#segments.at(-1)?.last ?? -1;
  }

  get complete(): boolean {
    return this.#segments.some((segment) => segment.complete);
  }

  /** Add operations; `owned` has the lists that this batch of events made, and may append to. */
  add(writer: string, last: number, complete: boolean, ops: readonly Op[], owned: Set<unknown>): void {
    let segment = this.#segments.at(-1);
    if (segment?.writer !== writer) {
      if (segment && this.#segments.length === 1) {
        segment.base = this.value;
        segment.ops = [];
        owned.delete(this.value);
      }
      segment = { writer, last, complete: false, ops: [] };
      this.#segments.push(segment);
    }
    segment.last = last;
    segment.complete ||= complete;
    for (const op of ops) {
      this.value = apply(this.value, op, owned);
      // The first segment is its value; a later one may come to stand on another value.
      if (this.#segments.length > 1) keep(segment.ops, op);
    }
  }

  /** Take back the segments whose events are superseded; return whether there were any. */
  remove(gone: (offset: number) => boolean): boolean {
    const kept = this.#segments.filter((segment) => !gone(segment.last));
    if (kept.length === this.#segments.length) return false;
    const all = this.#segments;
    this.#segments = [];
    let value: unknown = null;
    for (const segment of kept) {
      if (segment === all[0] && all.length > 1) value = segment.base;
      else for (const op of segment.ops) value = apply(value, op, new Set());
      if (this.#segments.length === 0) segment.base = value;
      this.#segments.push(segment);
    }
    this.value = value;
    return true;
  }
}

function keep(ops: Op[], op: Op): void {
  const before = ops.at(-1);
  if (op[0] === "set") ops.length = 0;
  if (op[0] === "text" && before?.[0] === "text" && typeof before[1] === "string" && typeof op[1] === "string") {
    ops[ops.length - 1] = ["text", before[1] + op[1]];
  } else if (op[0] !== "none") ops.push(op);
}

/** The value after one operation; one that cannot extend the value replaces it. */
export function apply(value: unknown, [op, data]: Op, owned: Set<unknown> = new Set()): unknown {
  switch (op) {
    case "text":
      return typeof value === "string" && typeof data === "string" ? value + data : data;
    case "list": {
      if (Array.isArray(value) && owned.has(value)) {
        value.push(data);
        return value;
      }
      const list = Array.isArray(value) ? [...value, data] : [data];
      owned.add(list);
      return list;
    }
    case "json-merge":
      return merged(value, data);
    case "ops":
      return isOps(data) ? data.reduce((before, inner) => apply(before, inner, owned), value) : data;
    case "set":
      return data;
    default:
      return value;
  }
}

function isOps(data: unknown): data is Op[] {
  return Array.isArray(data) && data.every((op) => Array.isArray(op) && op.length === 2 && typeof op[0] === "string");
}

/** RFC 7396, without a change of either value. */
function merged(value: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result: Record<string, unknown> = isObject(value) ? { ...value } : {};
  for (const [name, change] of Object.entries(patch)) {
    if (change === null) delete result[name];
    else {
      const before = Object.hasOwn(result, name) ? result[name] : undefined;
      // A member may have the name `__proto__`, which an assignment would not make a member.
      const made = { value: isObject(change) ? merged(before, change) : change };
      Object.defineProperty(result, name, { ...made, enumerable: true, configurable: true, writable: true });
    }
  }
  return result;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The state under one key: the latest event of each writer, the latest of all last. */
export class Keyed<E extends WireEvent> {
  #states = new Map<string, E>();

  get latest(): E | undefined {
    return [...this.#states.values()].at(-1);
  }

  put(writer: string, event: E): void {
    this.#states.delete(writer);
    this.#states.set(writer, event);
  }

  /** Take back superseded events; return whether the latest one changed. */
  remove(gone: (offset: number) => boolean): boolean {
    const before = this.latest;
    for (const [writer, event] of this.#states) if (gone(event.offset)) this.#states.delete(writer);
    return this.latest !== before;
  }
}

/** The source of an event; everything that it wrote is superseded together. */
export function writerOf(event: { run?: string; activity?: string; attempt?: number }): string {
  return JSON.stringify([event.run, event.activity, event.attempt]);
}

/** The ranges of an `$attempt.superseded`; empty for data of another shape. */
export function rangesOf(data: unknown): Range[] {
  const offsets = isObject(data) ? data.offsets : undefined;
  if (!Array.isArray(offsets)) return [];
  const isRange = (range: unknown): range is Range =>
    Array.isArray(range) && range.length === 2 && range.every((offset) => Number.isInteger(offset));
  return offsets.every(isRange) ? [...offsets].sort((a, b) => a[0] - b[0]) : [];
}

/** A function that returns whether an offset is in one of these ranges, which are in order. */
export function within(ranges: readonly Range[]): (offset: number) => boolean {
  return (offset) => ranges.some(([first, last]) => first <= offset && offset <= last);
}
