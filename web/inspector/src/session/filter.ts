/**
 * Filters of events: words that all have to hold.
 *
 *     topic:delta          a field is this; `*` stands for anything
 *     data.state~pack      a field contains this, whatever its case
 *     attempt>1  offset<=90  size>=1024
 *     -topic:$*            not
 *     "two words"          the event contains this
 */

import type { WireEvent } from "@wakeline/client";
import { sizeOf } from "../format.ts";

export type Test = (event: WireEvent) => boolean;

const WORD = /-?(?:[\w.$]+(?:>=|<=|[:~><]))?(?:"[^"]*"?|[^\s"]+)/g;
const PARTS = /^(-?)(?:([\w.$]+)(>=|<=|[:~><]))?(.*)$/s;

/** The test of a filter; an empty one admits every event. */
export function filterOf(text: string): Test {
  const tests = (text.match(WORD) ?? []).map(testOf);
  return (event) => tests.every((test) => test(event));
}

function testOf(word: string): Test {
  const [, not, field, sign, quoted = ""] = PARTS.exec(word) ?? [];
  const wanted = quoted.replace(/^"([^"]*)"?$/, "$1");
  const test = field === undefined || sign === undefined ? contains(wanted) : compares(field, sign, wanted);
  return not ? (event) => !test(event) : test;
}

function contains(wanted: string): Test {
  const low = wanted.toLowerCase();
  return (event) => (JSON.stringify(event) ?? "").toLowerCase().includes(low);
}

function compares(field: string, sign: string, wanted: string): Test {
  switch (sign) {
    case ":": {
      const pattern = new RegExp(`^${wanted.split("*").map(literal).join(".*")}$`, "s");
      return (event) => pattern.test(textOf(fieldOf(event, field)));
    }
    case "~": {
      const low = wanted.toLowerCase();
      return (event) => textOf(fieldOf(event, field)).toLowerCase().includes(low);
    }
    default: {
      const limit = Number(wanted);
      return (event) => {
        const value = fieldOf(event, field);
        // Times are texts whose order is that of time.
        const order = typeof value === "string" ? compare(value, wanted) : Number(value) - limit;
        if (sign === ">") return order > 0;
        if (sign === "<") return order < 0;
        return sign === ">=" ? order >= 0 : order <= 0;
      };
    }
  }
}

function compare(one: string, other: string): number {
  return one === other ? 0 : one < other ? -1 : 1;
}

function literal(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/** The part of an event that a path names; `size` is the size of its data. */
export function fieldOf(event: WireEvent, path: string): unknown {
  if (path === "size") return sizeOf(event.data ?? event.payload);
  let at: unknown = event;
  for (const step of path.split(".")) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, step)) return undefined;
    at = (at as Record<string, unknown>)[step];
  }
  return at;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value);
}
