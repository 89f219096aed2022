/** A session as a tape: lanes with ticks for events, and bars for what lasts. Pure; `drawing.ts` draws it. */

import type { SessionEvent } from "@wakeline/client";

export interface Tick {
  readonly offset: number;
  readonly time: number;
  readonly topic: string;
  /** Whether a later attempt superseded it. */
  readonly gone: boolean;
}

export interface Bar {
  readonly kind: string;
  readonly label: string;
  /** Index of the event with which it begins, and that with which it ends; none: it lasts. */
  readonly from: Place;
  to?: Place;
}

/** A place on the tape, by both of its axes. */
export interface Place {
  readonly offset: number;
  readonly time: number;
}

export interface Lane {
  readonly id: string;
  readonly title: string;
  readonly kind: "run" | "activity" | "requests" | "session";
  readonly ticks: Tick[];
  readonly bars: Bar[];
}

export interface Tape {
  readonly lanes: readonly Lane[];
  readonly first: Place;
  readonly last: Place;
}

type Data = Readonly<Record<string, unknown>>;

/** The lanes of events: each run with its activities below it, requests for input, and what belongs to no run. */
export function tapeOf(events: readonly SessionEvent[]): Tape {
  const gone = supersededIn(events);
  const lanes = new Lanes();
  for (const event of events) {
    const place = { offset: event.offset, time: Date.parse(event.time) };
    const data = (typeof event.data === "object" && event.data !== null ? event.data : {}) as Data;
    const lane = lanes.of(event, data);
    lane.ticks.push({ ...place, topic: event.topic, gone: gone(event.offset) });
    if (event.topic.startsWith("$")) mark(lanes, event, data, place);
    else if (event.activity !== undefined) lanes.attempt(event, place);
  }
  const ends = events.length ? [events[0], events.at(-1)] : [];
  const [first, last] = ends.map((event) => ({ offset: event?.offset ?? 0, time: Date.parse(event?.time ?? "") }));
  const nowhere = { offset: 0, time: 0 };
  return { lanes: lanes.all(), first: first ?? nowhere, last: last ?? nowhere };
}

/** Whether an event was superseded. */
export function supersededIn(events: readonly SessionEvent[]): (offset: number) => boolean {
  const by = supersedersIn(events);
  return (offset) => by(offset) !== undefined;
}

/** The `$attempt.superseded` that names an event, if any does. */
export function supersedersIn(events: readonly SessionEvent[]): (offset: number) => SessionEvent | undefined {
  const ranges: (readonly [number, number, SessionEvent])[] = [];
  for (const event of events) {
    if (event.topic !== "$attempt.superseded") continue;
    const { offsets } = event.data as { offsets?: readonly (readonly [number, number])[] };
    for (const [first, last] of offsets ?? []) ranges.push([first, last, event]);
  }
  ranges.sort((one, other) => one[0] - other[0]);
  return (offset) => {
    let low = 0;
    let high = ranges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((ranges[middle]?.[0] ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    const found = ranges[low - 1];
    return found && offset <= found[1] ? found[2] : undefined;
  };
}

class Lanes {
  readonly #lanes = new Map<string, Lane>();
  readonly #titles = new Map<string, string>();
  readonly #open = new Map<string, Bar>();
  /** The attempt of each activity whose bar is open. */
  readonly #attempts = new Map<string, number>();

  /** The lane of an event. */
  of(event: SessionEvent, data: Data): Lane {
    const { run, topic } = event;
    if (topic === "$run.started" && run !== undefined) {
      this.#titles.set(run, `${data.workflow_type ?? "run"} ${data.workflow_id ?? ""}`);
    }
    if (topic.startsWith("$input.")) return this.requests();
    const activity = event.activity ?? (topic.startsWith("$a") ? data.activity : undefined);
    if (activity !== undefined) return this.#lane(`activity\n${run}\n${activity}`, `${activity}`, "activity");
    if (run !== undefined) return this.run(run);
    return this.#lane("session", "session", "session");
  }

  run(run: string): Lane {
    return this.#lane(`run\n${run}`, this.#titles.get(run) ?? run, "run");
  }

  requests(): Lane {
    return this.#lane("requests", "input", "requests");
  }

  /** An activity's attempt lasts until the next one begins, or its last event. */
  attempt(event: SessionEvent, place: Place): void {
    const id = `activity\n${event.run}\n${event.activity}`;
    const number = event.attempt ?? 1;
    if (this.#attempts.get(id) !== number) {
      this.#attempts.set(id, number);
      this.begin(this.#lane(id, `${event.activity}`, "activity"), id, {
        kind: "attempt",
        label: `attempt ${number}`,
        from: place,
      });
    }
    const bar = this.#open.get(id);
    if (bar) bar.to = place;
  }

  begin(lane: Lane, id: string, bar: Bar): void {
    this.end(id, bar.from);
    lane.bars.push(bar);
    this.#open.set(id, bar);
  }

  end(id: string, place: Place): void {
    const bar = this.#open.get(id);
    if (bar) bar.to ??= place;
    this.#open.delete(id);
  }

  /** Runs in the order in which they came, each with its activities below it. */
  all(): Lane[] {
    const sorted: Lane[] = [];
    const lanes = [...this.#lanes.values()];
    for (const lane of lanes) {
      if (lane.kind !== "run") continue;
      sorted.push(lane);
      const run = lane.id.slice(4);
      sorted.push(...lanes.filter(({ id, kind }) => kind === "activity" && id.startsWith(`activity\n${run}\n`)));
    }
    return [...sorted, ...lanes.filter((lane) => !sorted.includes(lane))].map((lane) => ({
      ...lane,
      title: lane.kind === "run" ? (this.#titles.get(lane.id.slice(4)) ?? lane.title) : lane.title,
    }));
  }

  #lane(id: string, title: string, kind: Lane["kind"]): Lane {
    let lane = this.#lanes.get(id);
    if (!lane) {
      lane = { id, title, kind, ticks: [], bars: [] };
      this.#lanes.set(id, lane);
    }
    return lane;
  }
}

/** Begin or end the bar of one of Wakeline's own events. */
function mark(lanes: Lanes, event: SessionEvent, data: Data, place: Place): void {
  const { run = "", topic } = event;
  const id = `run\n${run}`;
  switch (topic) {
    case "$run.started":
      lanes.begin(lanes.run(run), id, { kind: "running", label: "running", from: place });
      break;
    case "$run.waiting":
      lanes.end(`${id}\nwait`, place);
      if (data.for !== null) {
        lanes.begin(lanes.run(run), `${id}\nwait`, { kind: "waiting", label: `waits for ${data.for}`, from: place });
      }
      break;
    case "$run.closed":
      lanes.end(`${id}\nwait`, place);
      lanes.begin(lanes.run(run), id, {
        kind: `end ${data.status}`,
        label: String(data.status),
        from: place,
        to: place,
      });
      break;
    case "$activity.retrying":
    case "$activity.paused": {
      const lane = lanes.of(event, data);
      lanes.end(`${lane.id}\nretry`, place);
      if (data.over !== true) {
        const label = topic === "$activity.paused" ? "paused" : `attempt ${data.attempt} is to come`;
        lanes.begin(lane, `${lane.id}\nretry`, { kind: "retrying", label, from: place });
      }
      break;
    }
    case "$input.requested":
      lanes.begin(lanes.requests(), `request\n${data.id}`, {
        kind: "asking",
        label: String(data.message ?? data.id),
        from: place,
      });
      break;
    case "$input.resolved":
      lanes.end(`request\n${data.request}`, place);
      break;
  }
}
