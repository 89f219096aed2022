/** Reading one session over HTTP: as an event stream, or by long-polls where a proxy holds streams back. */

import type { Http } from "./http.ts";
import type { Source } from "./live.ts";
import type { PresenceChange, WireEvent, WirePage } from "./wire.ts";

/** Browsers open six connections to an origin over HTTP/1.1: some of them stay free for requests. */
const MOST_HELD = typeof self === "undefined" ? Number.POSITIVE_INFINITY : 3;
const POLL_PAUSE_MS = 2_000;
let held = 0;

/** Fill a source until it is stopped or ends, from a stream or by long-polls. */
export async function fill(http: Http, path: string, source: Source, streams: boolean): Promise<void> {
  const stopping = new AbortController();
  const { signal } = stopping;
  source.stop = () => stopping.abort();
  // A request that was under way while the page slept may be dead: the reader goes on from its cursor.
  source.check = () => source.over();
  if (source.ended) return;
  // A stream, and a long-poll, hold a connection: sessions beyond a few are asked for in turns.
  const holds = held < MOST_HELD;
  if (holds) held += 1;
  try {
    if (holds && streams) await stream(http, path, source, signal);
    else await poll(http, path, source, signal, holds ? 0 : POLL_PAUSE_MS);
  } finally {
    if (holds) held -= 1;
  }
}

/** Fill a source from an event stream until it is stopped or ends. */
async function stream(http: Http, path: string, source: Source, signal: AbortSignal): Promise<void> {
  const { ask } = source;
  const query = {
    topics: ask.topics?.join(","),
    device: ask.device,
    from: source.cursor,
    until: ask.until,
    presence: ask.presence || undefined,
  };
  const headers = { Accept: "text/event-stream" };
  const answer = await http.open("GET", path, { query, headers, signal });
  // The page that the reader requests next reports the end, or what answers in the gateway's place.
  if (!answer.type.startsWith("text/event-stream")) return;
  let held = "";
  for await (const piece of answer.pieces) {
    if (!source.isOpen) source.opened();
    held += piece;
    const end = held.lastIndexOf("\n\n");
    if (end < 0) continue;
    for (const part of held.slice(0, end).split("\n\n")) take(source, part);
    held = held.slice(end + 2);
  }
}

function take(source: Source, part: string): void {
  const fields: Record<string, string> = {};
  for (const line of part.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  const { id, data, event } = fields;
  if (event === "presence" && data) source.presence(JSON.parse(data) as PresenceChange);
  else if (!event && id) source.events(data ? [JSON.parse(data) as WireEvent] : [], id);
}

/**
 * Fill a source by long-polls until it is stopped or ends.
 *
 * With `pause` the gateway answers at once and the client waits so many milliseconds, so that no connection is held.
 */
async function poll(http: Http, path: string, source: Source, signal: AbortSignal, pause = 0): Promise<void> {
  const { ask } = source;
  const wait = pause ? 0 : http.timing.poll;
  source.silent = true;
  source.opened();
  while (!signal.aborted) {
    const query = {
      topics: ask.topics?.join(","),
      device: ask.device,
      from: source.cursor,
      wait: wait / 1000 || undefined,
    };
    const page = await http.call<WirePage>("GET", path, { query, signal, wait });
    if (page.cursor !== source.cursor) source.events(page.events, page.cursor);
    if (page.up_to_date && (page.closed || (page.settled && ask.until))) return;
    if (pause && page.up_to_date) await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
