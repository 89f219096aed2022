import { emptyLedger, enter, type Ledger } from "./ledger.ts";
import { answered, asked, isOpen, type Question } from "./question.ts";
import { emptyStory, type Story, tell } from "./story.ts";
import { type Ending, firstNumber, firstString, members, type Status, type WireEvent } from "./wire.ts";

/** Everything a device knows of one session, from its events alone. */
export interface SessionView {
  readonly ledger: Ledger;
  /** How many of its events were published; Wakeline's own, such as the end of a run, do not count. */
  readonly published: number;
  readonly story: Story;
  readonly status: Status;
  /** Why it ended so: the failure's message, or what was said at a termination. */
  readonly why: string;
  /** What it waits for, or has trouble with, while it runs; empty if it does something. */
  readonly doing: string;
  /** The last question that it asked. */
  readonly question: Question | undefined;
  readonly settled: boolean;
}

export const emptyView: SessionView = {
  ledger: emptyLedger,
  published: 0,
  story: emptyStory,
  status: "running",
  why: "",
  doing: "",
  question: undefined,
  settled: false,
};

const ENDINGS: ReadonlySet<string> = new Set<Ending>(["completed", "failed", "canceled", "terminated", "timed_out"]);

/** The view after one more event. A duplicate is entered in the ledger, and its content is not told twice. */
export function fold(before: SessionView, event: WireEvent): SessionView {
  const lost = event.topic === "$gap" ? (firstNumber(event.data, "missed") ?? 0) : 0;
  const ledger = enter(before.ledger, event.offset, lost);
  if (ledger.duplicate > before.ledger.duplicate) return { ...before, ledger };
  const view = { ...before, ledger, published: before.published + (event.topic.startsWith("$") ? 0 : 1) };
  switch (event.topic) {
    case "$run.started":
      return { ...view, status: "running", why: "", doing: "", settled: false };
    case "$run.closed":
      return { ...view, status: endingOf(event), why: whyOf(event), doing: "", question: afterEnd(view) };
    case "$input.requested":
      return { ...view, question: asked(event) ?? view.question };
    case "$input.resolved":
      return { ...view, question: answered(view.question, event) };
    case "$run.waiting":
    case "$activity.retrying":
    case "$activity.paused":
    case "$activity.stalled":
      return { ...view, doing: doingOf(event) };
    case "$session.settled":
      return { ...view, settled: true };
    default:
      return { ...view, story: tell(view.story, event) };
  }
}

/** Nobody waits for the answer to a question whose run has ended. */
function afterEnd({ question }: SessionView): Question | undefined {
  return isOpen(question) ? undefined : question;
}

function endingOf(event: WireEvent): Status {
  const status = firstString(event.data, "status") ?? "";
  return ENDINGS.has(status) ? (status as Ending) : "running";
}

function doingOf({ topic, data }: WireEvent): string {
  const activity = firstString(data, "activity_type") ?? "an activity";
  if (topic === "$activity.stalled") return `${activity} has stalled`;
  if (topic === "$activity.retrying") {
    return members(data).over === true
      ? ""
      : `${activity} is tried again (attempt ${firstNumber(data, "attempt") ?? "?"})`;
  }
  if (topic === "$activity.paused") return members(data).over === true ? "" : `${activity} is paused`;
  const { signals, updates } = members(data);
  const names = [signals, updates].flatMap((list) => (Array.isArray(list) ? list.map(String) : []));
  switch (firstString(data, "for")) {
    case "worker":
      return "waits for a worker";
    case "timer":
      return "waits for a timer";
    case "task_retry":
      return "its code fails and is retried";
    case "input":
      return `waits for ${names.join(", ") || "somebody"}`;
    default:
      return "";
  }
}

function whyOf(event: WireEvent): string {
  return firstString(members(event.data).failure, "message") ?? firstString(event.data, "reason") ?? "";
}
