import { emptyLedger, enter, type Ledger } from "./ledger.ts";
import { emptyStory, type Story, tell } from "./story.ts";
import { type Ending, firstNumber, firstString, members, type Status, type WireEvent } from "./wire.ts";

/** Everything a device knows of one session, from its events alone. */
export interface SessionView {
  readonly ledger: Ledger;
  readonly story: Story;
  readonly status: Status;
  /** Why it ended so: the failure's message, or what was said at a termination. */
  readonly why: string;
  readonly settled: boolean;
}

export const emptyView: SessionView = {
  ledger: emptyLedger,
  story: emptyStory,
  status: "running",
  why: "",
  settled: false,
};

const ENDINGS: ReadonlySet<string> = new Set<Ending>(["completed", "failed", "canceled", "terminated", "timed_out"]);

/** The view after one more event. A duplicate is entered in the ledger, and its content is not told twice. */
export function fold(view: SessionView, event: WireEvent): SessionView {
  const lost = event.topic === "$gap" ? (firstNumber(event.data, "missed") ?? 0) : 0;
  const ledger = enter(view.ledger, event.offset, lost);
  if (ledger.duplicate > view.ledger.duplicate) return { ...view, ledger };
  switch (event.topic) {
    case "$run.started":
      return { ...view, ledger, status: "running", why: "", settled: false };
    case "$run.closed":
      return { ...view, ledger, status: endingOf(event), why: whyOf(event) };
    case "$session.settled":
      return { ...view, ledger, settled: true };
    default:
      return { ...view, ledger, story: tell(view.story, event) };
  }
}

function endingOf(event: WireEvent): Status {
  const status = firstString(event.data, "status") ?? "";
  return ENDINGS.has(status) ? (status as Ending) : "running";
}

function whyOf(event: WireEvent): string {
  return firstString(members(event.data).failure, "message") ?? firstString(event.data, "reason") ?? "";
}
