/** The readings behind the hooks, each as what it amounts to. */

import type { Device, EventsOptions, Message, Reading, RunView, Session, SessionEvent, View } from "@wakeline/client";
import type { Open, Snapshot } from "./store.ts";

/** What a view holds, as values that do not change. */
export interface ViewContent {
  readonly messages: readonly Message[];
  readonly runs: readonly RunView[];
  readonly requests: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  /** The view itself, for its keyed states and events. */
  readonly view: View | undefined;
}

function none<T>(value: T): Snapshot<T> {
  return { state: { status: "connecting" }, value };
}

export const NO_VIEW = none<ViewContent>({ messages: [], runs: [], requests: new Map(), view: undefined });
export const NO_EVENTS = none<readonly SessionEvent[]>([]);
export const NO_DEVICES = none<readonly Device[]>([]);

export function openView(session: Session, options: Reading, changed: () => void): ReturnType<Open<ViewContent>> {
  const view = session.view(changed, options);
  return {
    read: () => ({
      state: view.state,
      value: { messages: view.messages, runs: [...view.runs.values()], requests: view.requests, view },
    }),
    close: () => view.close(),
  };
}

export function openEvents(
  session: Session,
  options: EventsOptions,
  limit: number,
  changed: () => void,
): ReturnType<Open<readonly SessionEvent[]>> {
  const reading = session.events(options);
  const unwatch = session.onState(changed);
  let events: SessionEvent[] = [];
  const read = async () => {
    try {
      for await (const event of reading) {
        events.push(event);
        // Not at every event: to drop the first of many is slow.
        if (events.length > 2 * limit) events = events.slice(-limit);
        changed();
      }
    } catch {
      // The state has the refusal.
    }
    changed();
  };
  void read();
  return {
    read: () => ({ state: reading.state, value: events.slice(-limit) }),
    close() {
      unwatch();
      reading.close();
    },
  };
}

export function openPresence(session: Session, changed: () => void): ReturnType<Open<readonly Device[]>> {
  let present: readonly Device[] = [];
  const close = session.presence((devices) => {
    present = devices;
    changed();
  });
  return { read: () => ({ state: { status: "live" }, value: present }), close };
}
