import { firstNumber, firstString, members, type WireEvent } from "./wire.ts";

/** What the events of one session say, in the forms that a card can draw. */
export interface Story {
  readonly text: string;
  /** Which activity is writing `text`, its attempt, and where in `text` its words begin. */
  readonly writer: { readonly activity: string; readonly attempt: number; readonly start: number };
  readonly steps: readonly Step[];
  readonly stages: readonly Stage[];
  /** The latest events that have no form of their own. */
  readonly others: readonly Other[];
}

export interface Step {
  readonly label: string;
  readonly detail: string;
}

export interface Stage {
  readonly name: string;
  readonly percent: number;
  /** Whether it ever said how far it is. */
  readonly measured: boolean;
}

export interface Other {
  readonly offset: number;
  readonly topic: string;
  readonly summary: string;
}

export const emptyStory: Story = {
  text: "",
  writer: { activity: "", attempt: 0, start: 0 },
  steps: [],
  stages: [],
  others: [],
};

const MOST_OTHERS = 30;
const SUMMARY_LENGTH = 160;
const FINISHED = new Set(["completed", "complete", "done", "finished"]);

export function tell(story: Story, event: WireEvent): Story {
  switch (event.topic) {
    case "delta":
      return write(story, event) ?? other(story, event);
    case "retry":
      return other({ ...story, text: story.text.slice(0, story.writer.start) }, event);
    case "status":
    case "step":
      return step(story, event) ?? other(story, event);
    case "stage":
    case "progress":
      return stage(story, event) ?? other(story, event);
    default:
      return other(story, event);
  }
}

function write(story: Story, event: WireEvent): Story | undefined {
  const text = members(event.data).text;
  if (typeof text !== "string") return undefined;
  const { activity = "", attempt = 1 } = event;
  const { writer } = story;
  if (activity !== writer.activity) {
    return { ...story, text: story.text + text, writer: { activity, attempt, start: story.text.length } };
  }
  // A later attempt says it all again: what the earlier one wrote is superseded.
  if (attempt > writer.attempt && writer.attempt > 0) {
    return { ...story, text: story.text.slice(0, writer.start) + text, writer: { ...writer, attempt } };
  }
  return { ...story, text: story.text + text, writer: { ...writer, attempt } };
}

function step(story: Story, event: WireEvent): Story | undefined {
  const label =
    typeof event.data === "string" ? event.data : firstString(event.data, "status", "state", "step", "name");
  if (!label) return undefined;
  const entry = { label, detail: firstString(event.data, "detail", "message", "note") ?? "" };
  const known = story.steps.findIndex((existing) => existing.label === label);
  return { ...story, steps: known < 0 ? [...story.steps, entry] : story.steps.with(known, entry) };
}

function stage(story: Story, event: WireEvent): Story | undefined {
  const name =
    (typeof event.data === "string" ? event.data : firstString(event.data, "stage", "name")) ??
    story.stages.at(-1)?.name;
  if (!name) return undefined;
  const percent = percentOf(event);
  const known = story.stages.find((existing) => existing.name === name);
  const entry = { name, percent: percent ?? known?.percent ?? 0, measured: percent !== undefined || !!known?.measured };
  if (known) return { ...story, stages: story.stages.map((existing) => (existing === known ? entry : existing)) };
  // A stage that never said how far it is was done when the next one began.
  const before = story.stages.map((existing) => (existing.measured ? existing : { ...existing, percent: 100 }));
  return { ...story, stages: [...before, entry] };
}

function percentOf(event: WireEvent): number | undefined {
  const state = firstString(event.data, "status", "state");
  if (state && FINISHED.has(state)) return 100;
  const done = firstNumber(event.data, "done", "completed", "current");
  const total = firstNumber(event.data, "total", "of");
  const percent =
    done !== undefined && total ? (100 * done) / total : firstNumber(event.data, "percent", "progress", "value");
  return percent === undefined ? undefined : Math.min(100, Math.max(0, percent));
}

function other(story: Story, event: WireEvent): Story {
  const text = typeof event.data === "string" ? event.data : (JSON.stringify(event.data) ?? "");
  const entry = { offset: event.offset, topic: event.topic, summary: text.slice(0, SUMMARY_LENGTH) };
  return { ...story, others: [...story.others, entry].slice(-MOST_OTHERS) };
}
