/** The events of a session, one a line. */

import { type ReadonlySignal, useComputed, useSignal } from "@preact/signals";
import type { SessionEvent } from "@wakeline/client";
import { useEffect, useRef } from "preact/hooks";
import { brief, clock, count } from "../format.ts";
import { useKeys } from "../keys.ts";
import { change, route } from "../route.ts";
import { classOf } from "./colours.ts";
import type { SessionLog } from "./log.ts";
import { supersededIn } from "./tape.ts";

const LINE = 28;

export function Events({ log, shown }: { log: SessionLog; shown: ReadonlySignal<readonly SessionEvent[]> }) {
  const box = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(400);
  /** Whether the box shows the end, and so goes on with it. */
  const follows = useRef(true);
  /** The lower edge of what it shows; a box that becomes higher or lower keeps it. */
  const seen = useRef(0);
  const gone = useComputed(() => {
    void log.version.value;
    return supersededIn(log.events);
  });
  const events = shown.value;
  const chosen = Number(route.value.query.get("e") ?? Number.NaN);

  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      height.value = entry?.contentRect.height ?? 400;
    });
    if (box.current) observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const { current } = box;
    if (current && follows.current) current.scrollTop = current.scrollHeight;
  }, [events.length, height.value]);

  useEffect(() => {
    // A link to an event shows it; the keys and a click have it on the screen already.
    const { current } = box;
    const at = shown.peek().findIndex(({ offset }) => offset === chosen);
    if (!current || at < 0) return;
    follows.current = false;
    const y = at * LINE;
    if (y < current.scrollTop || y + LINE > current.scrollTop + current.clientHeight) {
      current.scrollTop = y - current.clientHeight / 2;
    }
  }, [chosen, events.length > 0, height.value]);

  const choose = (by: number) => {
    const now = shown.peek();
    const selected = Number(route.peek().query.get("e") ?? Number.NaN);
    const at = now.findIndex(({ offset }) => offset >= selected);
    const index = at < 0 ? (by > 0 ? 0 : now.length - 1) : Math.max(0, Math.min(now.length - 1, at + by));
    const event = now[index];
    if (!event) return;
    follows.current = false;
    change({ e: String(event.offset) });
    const { current } = box;
    if (!current) return;
    if (index * LINE < current.scrollTop) current.scrollTop = index * LINE;
    else if ((index + 1) * LINE > current.scrollTop + current.clientHeight) {
      current.scrollTop = (index + 1) * LINE - current.clientHeight;
    }
  };
  useKeys({ j: () => choose(1), k: () => choose(-1) });

  const first = Math.max(0, Math.floor(top.value / LINE) - 8);
  const last = Math.ceil((top.value + height.value) / LINE) + 8;
  return (
    <section
      class="lines"
      ref={box}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls has to be reached by the keyboard
      tabIndex={0}
      aria-label="Events"
      onScroll={(event) => {
        const { scrollTop, clientHeight, scrollHeight } = event.currentTarget;
        const bottom = scrollTop + clientHeight;
        // The list may have grown since the page scrolled it to its end: it leaves the end when it is scrolled back.
        if (bottom >= scrollHeight - LINE) follows.current = true;
        else if (bottom < seen.current - 1) follows.current = false;
        seen.current = bottom;
        top.value = scrollTop;
      }}
    >
      <ol style={{ height: events.length * LINE }}>
        {events.slice(first, last).map((event, at) => (
          <Line
            key={event.offset}
            event={event}
            top={(first + at) * LINE}
            gone={gone.value(event.offset)}
            chosen={event.offset === chosen}
          />
        ))}
      </ol>
      {events.length === 0 && log.isRead && <p class="empty soft">No event, or none that passes the filter.</p>}
    </section>
  );
}

function Line({ event, top, gone, chosen }: { event: SessionEvent; top: number; gone: boolean; chosen: boolean }) {
  const by = event.activity === undefined ? "" : `${event.activity}${event.attempt ? ` · ${event.attempt}` : ""}`;
  return (
    <li
      class={`event${gone ? " gone" : ""}${chosen ? " chosen" : ""}`}
      style={{ transform: `translateY(${top}px)` }}
      data-offset={event.offset}
    >
      <button
        type="button"
        onClick={() => change({ e: chosen ? "" : String(event.offset) })}
        aria-pressed={chosen}
        title={gone ? "Superseded by a later attempt" : undefined}
      >
        <span class="number soft">{count(event.offset)}</span>
        <time class="soft" dateTime={event.time}>
          {clock(event.time)}
        </time>
        <span class={classOf(event.topic)}>
          <bdi>{event.topic}</bdi>
        </span>
        <code>
          <bdi>{event.payload ? "payload" : brief(event.data)}</bdi>
        </code>
        <span class="soft by">
          <bdi>{by}</bdi>
        </span>
      </button>
    </li>
  );
}
