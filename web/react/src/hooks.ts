/** The hooks. Each may be used many times for one session: they share its reading. */

import type {
  AnswerOptions,
  Device,
  InputRequest,
  Message,
  Reading,
  RunView,
  Session,
  SessionEvent,
  State,
} from "@wakeline/client";
import { useMemo, useSyncExternalStore } from "react";
import { useClient } from "./provider.ts";
import { NO_DEVICES, NO_EVENTS, NO_VIEW, openEvents, openPresence, openView, type ViewContent } from "./readings.ts";
import { knownStore, type Open, type Snapshot, storeOf } from "./store.ts";

export interface Enabled {
  /** `false` reads nothing, until it is `true`. */
  readonly enabled?: boolean;
}

export interface ViewOptions extends Reading, Enabled {}

/** A name that is not known yet reads nothing. */
export type SessionName = string | null | undefined;

const nothing = () => () => undefined;

/** Subscribe to the store of a key; without one, and on a server, there is what `none` holds. */
function useStore<T>(key: string | undefined, none: Snapshot<T>, open: Open<T>): Snapshot<T> {
  const client = useClient();
  // A store is made by the first component that subscribes: a render alone, such as on a server, registers nothing.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the key stands for all that is opened under it
  const subscribe = useMemo(
    () =>
      key === undefined ? nothing : (listener: () => void) => storeOf(client, key, none, open).subscribe(listener),
    [client, key],
  );
  return useSyncExternalStore(
    subscribe,
    () => (key === undefined ? undefined : knownStore<T>(client, key))?.snapshot ?? none,
    () => none,
  );
}

function keyOf(kind: string, name: SessionName, { enabled = true }: Enabled, ...rest: unknown[]): string | undefined {
  return enabled && name ? JSON.stringify([kind, name, ...rest]) : undefined;
}

function useView(name: SessionName, options: ViewOptions): Snapshot<ViewContent> {
  const { topics, until, waitForStart } = options;
  const client = useClient();
  const key = keyOf("view", name, options, topics, until, waitForStart);
  return useStore(key, NO_VIEW, (changed) => openView(client.session(name as string), readingOf(options), changed));
}

function readingOf({ topics, until, waitForStart }: Reading): Reading {
  return { ...(topics && { topics }), ...(until && { until }), ...(waitForStart && { waitForStart }) };
}

/** A session's handle, the state of its reading, and its view. */
export function useSession(
  name: string,
  options: ViewOptions = {},
): { readonly session: Session; readonly state: State; readonly view: ViewContent["view"] } {
  const client = useClient();
  const { state, value } = useView(name, options);
  return { session: client.session(name), state, view: value.view };
}

/** The messages that grow, as they are now; with `topic`, those of one. */
export function useMessages(name: SessionName, options: ViewOptions & { topic?: string } = {}): readonly Message[] {
  const { topic, ...rest } = options;
  const { messages } = useView(name, rest).value;
  return useMemo(
    () => (topic === undefined ? messages : messages.filter((message) => message.topic === topic)),
    [messages, topic],
  );
}

/** The session's latest run, or the one of a name; `undefined` before it begins. */
export function useRun(name: SessionName, options: ViewOptions & { run?: string } = {}): RunView | undefined {
  const { run, ...rest } = options;
  const { runs } = useView(name, rest).value;
  return run === undefined ? runs.at(-1) : runs.find((known) => known.run === run);
}

/** An open request for input, with its answer. */
export interface OpenRequest {
  readonly id: string;
  readonly reason?: string;
  readonly message?: string;
  readonly choices?: readonly string[];
  readonly [field: string]: unknown;
  answer(payload?: unknown, options?: AnswerOptions): Promise<InputRequest>;
}

/** The open requests for input; the first answer counts. */
export function useRequests(name: SessionName, options: ViewOptions = {}): readonly OpenRequest[] {
  const client = useClient();
  const { requests } = useView(name, options).value;
  return useMemo(
    () =>
      [...requests].map(([id, data]) => ({
        ...data,
        id,
        answer: (payload?: unknown, how?: AnswerOptions) => client.session(name as string).answer(id, payload, how),
      })),
    [client, name, requests],
  );
}

export interface EventsOptions extends ViewOptions {
  readonly from?: string;
  /** The most events that are kept, the latest ones; 1000 by default. */
  readonly limit?: number;
}

/** The session's events, the latest `limit` of them. */
export function useEvents(
  name: SessionName,
  options: EventsOptions = {},
): { readonly events: readonly SessionEvent[]; readonly state: State } {
  const { topics, until, waitForStart, from = "beginning", limit = 1000 } = options;
  const client = useClient();
  const key = keyOf("events", name, options, topics, until, waitForStart, from, limit);
  const { state, value } = useStore(key, NO_EVENTS, (changed) =>
    openEvents(client.session(name as string), { ...readingOf(options), from }, limit, changed),
  );
  return { events: value, state };
}

/** The devices that are connected to the session now. */
export function usePresence(name: SessionName, options: Enabled = {}): readonly Device[] {
  const client = useClient();
  const key = keyOf("presence", name, options);
  return useStore(key, NO_DEVICES, (changed) => openPresence(client.session(name as string), changed)).value;
}
