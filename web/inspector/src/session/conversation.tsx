/** The conversation view. */

import { type ReadonlySignal, useComputed } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { pretty } from "../format.ts";
import { Chat, type Entry } from "./chat.ts";
import { classOf } from "./colours.ts";
import type { SessionLog } from "./log.ts";

/** Of a longer conversation the end is shown. */
const MOST = 300;
/** JSON of so many characters is shown on one line. */
const SHORT = 80;

export function Conversation({ log, count }: { log: SessionLog; count: ReadonlySignal<number> }) {
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const seen = useRef(0);
  const chat = useMemo(() => new Chat(), [log]);
  const entries = useComputed(() => {
    void log.version.value;
    return chat.entries(log.events, count.value);
  });
  const all = entries.value;
  useEffect(() => {
    const { current } = box;
    if (current && follows.current) current.scrollTop = current.scrollHeight;
  });
  return (
    <section
      class="entries"
      ref={box}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls has to be reached by the keyboard
      tabIndex={0}
      aria-label="Conversation"
      onScroll={(event) => {
        const { scrollTop, clientHeight, scrollHeight } = event.currentTarget;
        const bottom = scrollTop + clientHeight;
        // As in the list of events.
        if (bottom >= scrollHeight - 30) follows.current = true;
        else if (bottom < seen.current - 1) follows.current = false;
        seen.current = bottom;
      }}
    >
      {all.length > MOST && <p class="soft">{all.length - MOST} earlier entries are not shown.</p>}
      {all.slice(-MOST).map((entry) => (
        <Shown key={entry.id} entry={entry} />
      ))}
      {all.length === 0 && log.isRead && <p class="empty soft">Nothing to show yet.</p>}
    </section>
  );
}

function Shown({ entry }: { entry: Entry }) {
  if (entry.kind === "note") return <p class={`note ${entry.mood}`}>{entry.text}</p>;
  if (entry.kind === "speech") {
    return (
      <article class="bubble">
        <header class={classOf(entry.topic)}>
          <bdi>{entry.topic}</bdi>
        </header>
        <p class="said">{entry.text}</p>
      </article>
    );
  }
  if (entry.kind === "message") {
    const { topic, value, complete } = entry.message;
    return (
      <article class="bubble">
        <header class={classOf(topic)}>
          <bdi>{topic}</bdi>
        </header>
        <Value value={value} />
        {!complete && <span class="soft">…</span>}
      </article>
    );
  }
  const { topic, key, data, payload } = entry.event;
  return (
    <article class={entry.kind === "state" ? "bubble state" : "bubble plain"}>
      <header class={classOf(topic)}>
        <bdi>{key === undefined ? topic : `${topic} · ${key}`}</bdi>
      </header>
      <Value value={payload ?? data} />
    </article>
  );
}

function Value({ value }: { value: unknown }) {
  if (typeof value === "string") return <p class="said">{value}</p>;
  const short = JSON.stringify(value) ?? "";
  return <pre>{short.length <= SHORT ? short : pretty(value)}</pre>;
}
