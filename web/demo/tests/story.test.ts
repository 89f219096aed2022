import { describe, expect, it } from "vitest";
import { emptyStory, type Story, tell } from "../src/story.ts";
import type { WireEvent } from "../src/wire.ts";

type Told = [topic: string, data?: unknown, more?: Partial<WireEvent>];

function story(...told: Told[]): Story {
  return told.reduce(
    (before, [topic, data = null, more = {}], offset) => tell(before, { offset, topic, data, time: "", ...more }),
    emptyStory,
  );
}

describe("an answer", () => {
  it("accumulates", () => {
    expect(story(["delta", { text: "Hel" }], ["delta", { text: "lo" }]).text).toBe("Hello");
  });

  it("goes on over several activities", () => {
    const first = { activity: "1", attempt: 1 };
    const second = { activity: "2", attempt: 1 };
    expect(story(["delta", { text: "a" }, first], ["delta", { text: "b" }, second]).text).toBe("ab");
  });

  it("begins anew where a later attempt of its activity begins", () => {
    const told = story(
      ["delta", { text: "kept " }, { activity: "1", attempt: 1 }],
      ["delta", { text: "half an ans" }, { activity: "2", attempt: 1 }],
      ["delta", { text: "whole " }, { activity: "2", attempt: 2 }],
      ["delta", { text: "answer" }, { activity: "2", attempt: 2 }],
    );
    expect(told.text).toBe("kept whole answer");
  });

  it("is a plain event without text", () => {
    const told = story(["delta", { words: 3 }]);
    expect(told.text).toBe("");
    expect(told.others).toEqual([{ offset: 0, topic: "delta", summary: '{"words":3}' }]);
  });
});

describe("steps", () => {
  it("come in order, the same one once", () => {
    const told = story(
      ["status", { state: "charging", detail: "asking the bank" }],
      ["status", "shipping"],
      ["status", { status: "shipping", detail: "on its way" }],
    );
    expect(told.steps).toEqual([
      { label: "charging", detail: "asking the bank" },
      { label: "shipping", detail: "on its way" },
    ]);
  });
});

describe("stages", () => {
  const percents = (...told: Told[]) => story(...told).stages.map(({ name, percent }) => [name, percent]);

  it("take their progress as a percentage or as a part of a total", () => {
    expect(percents(["stage", { stage: "load" }], ["progress", { percent: 40 }])).toEqual([["load", 40]]);
    expect(percents(["progress", { stage: "load", done: 3, total: 4 }])).toEqual([["load", 75]]);
    expect(percents(["progress", { stage: "load", progress: 400 }])).toEqual([["load", 100]]);
  });

  it("are full when they say that they are done", () => {
    expect(percents(["stage", { name: "load", status: "completed" }])).toEqual([["load", 100]]);
  });

  it("are full when the next one begins, unless they said how far they were", () => {
    expect(
      percents(["stage", "fetch"], ["stage", "parse"], ["progress", { percent: 30 }], ["stage", { stage: "load" }]),
    ).toEqual([
      ["fetch", 100],
      ["parse", 30],
      ["load", 0],
    ]);
  });
});

it("keeps only the latest of the other events", () => {
  const told = story(...Array.from({ length: 100 }, (_, index): Told => ["note", { index }]));
  expect(told.others).toHaveLength(30);
  expect(told.others.at(-1)).toEqual({ offset: 99, topic: "note", summary: '{"index":99}' });
});
