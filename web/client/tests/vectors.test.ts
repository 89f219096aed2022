import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { apply } from "../src/fold.ts";
import { Folded } from "../src/folded.ts";
import type { Op, SessionEvent } from "../src/index.ts";

/** The vectors that the tests in Python read as well. */
function vectors<T>(name: string): T[] {
  return JSON.parse(readFileSync(join(import.meta.dirname, "../../../tests/vectors", `${name}.json`), "utf8")) as T[];
}

interface SessionVector {
  readonly title: string;
  readonly log: readonly SessionEvent[];
  readonly compact: { readonly next_offset: number; readonly events: readonly SessionEvent[] };
  readonly expected: unknown;
}

function content(view: Folded) {
  const ordered = <T>(list: T[]) => list.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  return {
    messages: ordered(view.messages.map(({ topic, id, value, complete }) => ({ topic, id, value, complete }))),
    keyed: ordered(view.keyed.map(({ topic, key, data }) => [topic, key, data])),
    events: view.events.map(({ offset }) => offset),
  };
}

test.each(vectors<{ title: string; ops: Op[]; value: unknown }>("operations"))("operations: $title", (vector) => {
  expect(vector.ops.reduce((value, op) => apply(value, op), null as unknown)).toEqual(vector.value);
});

test.each(vectors<SessionVector>("sessions"))("the log: $title", ({ log, expected }) => {
  const atOnce = new Folded();
  atOnce.add(log);
  expect(content(atOnce)).toEqual(expected);
  const oneByOne = new Folded();
  for (const event of log) oneByOne.add([event]);
  expect(content(oneByOne)).toEqual(expected);
});

test.each(vectors<SessionVector>("sessions"))("the compact form: $title", ({ log, compact, expected }) => {
  const view = new Folded();
  view.add(compact.events);
  view.add(log.filter(({ offset }) => offset >= compact.next_offset));
  expect(content(view)).toEqual(expected);
});

test("a value that was given out does not change later", () => {
  const piece = (offset: number, op: string, data: unknown) => ({
    offset,
    topic: "t",
    time: "",
    cursor: "",
    data,
    message: { id: "m", op },
  });
  const view = new Folded();
  view.add([piece(0, "list", 1), piece(1, "list", 2)]);
  const before = view.message("t", "m")?.value;
  view.add([piece(2, "list", 3)]);
  expect(before).toEqual([1, 2]);
  expect(view.message("t", "m")?.value).toEqual([1, 2, 3]);
});
