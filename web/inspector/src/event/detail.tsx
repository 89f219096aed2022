/** One event: what it is, who published it, and how to read the session from it on. */

import { useSignal } from "@preact/signals";
import type { SessionEvent, SessionInfo } from "@wakeline/client";
import { useEffect } from "preact/hooks";
import { type Publication, sessionPath } from "../api.ts";
import { bytes, count, pretty, sizeOf } from "../format.ts";
import { call, settings, signedIn } from "../gateway.ts";
import { Copy } from "../parts.tsx";
import { change, changed } from "../route.ts";
import { classOf } from "../session/colours.ts";
import { cursorAt, type SessionLog } from "../session/log.ts";
import { supersedersIn } from "../session/tape.ts";
import { LANGUAGES, programOf } from "./copies.ts";
import { decode, encodingOf, plainOf } from "./payload.ts";
import { temporalLink } from "./temporal.ts";

interface Of {
  readonly name: string;
  readonly event: SessionEvent;
  readonly log: SessionLog;
  readonly record: SessionInfo | undefined;
}

export function Detail({ name, event, log, record }: Of) {
  const raw = useSignal(false);
  const publication = usePublication(name, event);
  const { cursor: _, ...wire } = event;
  return (
    <aside class="detail card" aria-label="Event" data-detail={event.offset}>
      <header class="line">
        <h2>Event {count(event.offset)}</h2>
        <span class={classOf(event.topic)}>
          <bdi>{event.topic}</bdi>
        </span>
        <button type="button" class="close" onClick={() => change({ e: "" })} aria-label="Close the event">
          ✕
        </button>
      </header>
      <Facts event={event} log={log} record={record} publication={publication} />
      <div class="line">
        <button type="button" aria-pressed={!raw.value} onClick={() => (raw.value = false)}>
          Pretty
        </button>
        <button type="button" aria-pressed={raw.value} onClick={() => (raw.value = true)}>
          Raw
        </button>
        <Copy text={() => JSON.stringify(wire)}>Copy</Copy>
      </div>
      {raw.value ? (
        <pre>{JSON.stringify(wire)}</pre>
      ) : event.payload ? (
        <Encoded payload={event.payload} namespace={runOf(record, event)?.namespace ?? "default"} />
      ) : typeof event.data === "string" ? (
        <p class="said">{event.data}</p>
      ) : (
        <pre>{pretty(event.data)}</pre>
      )}
      <h3>Read the session from here, as</h3>
      <div class="line">
        {LANGUAGES.map((language) => (
          <Copy
            key={language}
            text={() => programOf(language, location.origin, name, cursorAt(epochOf(event), event.offset), signedIn())}
          >
            {language}
          </Copy>
        ))}
      </div>
    </aside>
  );
}

/** The publication of an event: empty until the gateway has answered, `null` if it knows none, or a refusal. */
function usePublication(name: string, { cursor, offset }: SessionEvent): Publication | null | string {
  const found = useSignal<Publication | null | string>("");
  useEffect(() => {
    const stop = new AbortController();
    found.value = "";
    call<{ publication: Publication | null }>("GET", sessionPath(name, "events", String(offset)), {
      signal: stop.signal,
    }).then(
      ({ publication }) => {
        if (!stop.signal.aborted) found.value = publication;
      },
      (thrown) => {
        if (!stop.signal.aborted) found.value = thrown instanceof Error ? thrown.message : String(thrown);
      },
    );
    return () => stop.abort();
  }, [name, cursor]);
  return found.value;
}

function publishedAs(found: Publication | null | string): [string, unknown][] {
  if (found === null) return [["Publisher", "not kept"]];
  if (typeof found === "string") return [["Publisher", found || "…"]];
  return [
    ["Publisher", found.publisher],
    ["Publisher's attempt", found.attempt ?? "an earlier one"],
    ["Sequence", found.sequence ?? undefined],
  ];
}

function Facts({ event, log, record, publication }: Omit<Of, "name"> & { publication: Publication | null | string }) {
  const by = supersedersIn(log.events)(event.offset);
  const run = runOf(record, event);
  const link = run && settings.temporal_ui ? temporalLink(settings.temporal_ui, run) : undefined;
  const value = event.payload ?? event.data;
  const facts: [string, unknown][] = [
    ["Time", event.time],
    ["Size", bytes(sizeOf(value))],
    ["Run", event.run],
    ["Activity", event.activity],
    ["Attempt", event.attempt],
    ...publishedAs(publication),
    ["Key", event.key],
    [
      "Message",
      event.message && `${event.message.id} · ${event.message.op}${event.message.complete ? " · complete" : ""}`,
    ],
    ["Encoding", event.payload && encodingOf(event.payload)],
  ];
  return (
    <dl class="facts">
      {facts.map(([label, fact]) =>
        fact === undefined ? null : (
          <div key={label}>
            <dt>{label}</dt>
            <dd>
              <bdi>{String(fact)}</bdi>
            </dd>
          </div>
        ),
      )}
      {by && (
        <div>
          <dt>Superseded</dt>
          <dd>
            by attempt {String((by.data as { attempt?: number }).attempt)},{" "}
            <a href={changed({ e: String(by.offset) })}>event {count(by.offset)}</a>
          </dd>
        </div>
      )}
      {run && (
        <div>
          <dt>{run.kind === "activity" ? "Standalone activity" : "Workflow"}</dt>
          <dd>
            {link ? (
              <a href={link} target="_blank" rel="noreferrer">
                <bdi>{run.workflow_id}</bdi> in Temporal
              </a>
            ) : (
              <bdi>{run.workflow_id}</bdi>
            )}
          </dd>
        </div>
      )}
    </dl>
  );
}

/** A payload; a codec server decodes it, if the gateway's settings name one. */
function Encoded({ payload, namespace }: { payload: NonNullable<SessionEvent["payload"]>; namespace: string }) {
  const decoded = useSignal<string | undefined>(undefined);
  const error = useSignal("");
  const server = settings.codec_server;
  useEffect(() => {
    let over = false;
    decoded.value = undefined;
    error.value = "";
    const work = server ? decode(server, payload, namespace) : Promise.resolve().then(() => plainOf(payload));
    work.then(
      (value) => {
        if (!over && value !== payload) decoded.value = pretty(value);
      },
      (thrown) => {
        if (!over) error.value = thrown instanceof Error ? thrown.message : String(thrown);
      },
    );
    return () => {
      over = true;
    };
  }, [payload, server]);
  return (
    <>
      {error.value && <p class="failure">{error.value}</p>}
      {!server && decoded.value === undefined && (
        <p class="soft">
          Encoded. The setting <code>codec_server</code> names a server that decodes it here.
        </p>
      )}
      <pre>{decoded.value ?? pretty(payload)}</pre>
    </>
  );
}

function runOf(record: SessionInfo | undefined, event: SessionEvent) {
  return record?.runs.find(({ run }) => run === event.run);
}

function epochOf({ cursor }: SessionEvent): string {
  return cursor.split("-")[0] ?? "";
}
