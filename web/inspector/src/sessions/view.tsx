/** All sessions, the newest first. */

import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { SessionPage } from "../api.ts";
import { ago, count } from "../format.ts";
import { call } from "../gateway.ts";
import { useKeys } from "../keys.ts";
import { AsJson, Badge, Failure, Spark } from "../parts.tsx";
import { repeat } from "../polling.ts";
import { change, go, route, to } from "../route.ts";
import { type Row, SessionList } from "./list.ts";

const ROW = 46;
const REFRESH_MS = 2000;
const FILTERS = ["running", "failed", "completed", "canceled", "terminated", "timed_out", "open", "closed"];

export function Sessions() {
  const query = route.value.query;
  const search = query.get("q") ?? "";
  const state = query.get("status") ?? "";
  const list = useMemo(
    () => new SessionList((asked) => call<SessionPage>("GET", "/v1/sessions", { query: asked }), search, state),
    [search, state],
  );
  return (
    <>
      <div class="bar">
        <h1>Sessions</h1>
        <Search text={search} />
        <label class="line">
          <span class="soft">Status</span>
          <select
            value={state}
            onChange={(event) => change({ status: event.currentTarget.value })}
            aria-label="Only sessions with this status"
          >
            <option value="">all</option>
            {FILTERS.map((name) => (
              <option key={name} value={name}>
                {name.replace("_", " ")}
              </option>
            ))}
          </select>
        </label>
        <AsJson />
      </div>
      <Failure error={list.error.value} />
      <List key={`${search}\n${state}`} list={list} filtered={Boolean(search || state)} />
    </>
  );
}

function Search({ text }: { text: string }) {
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <input
      type="search"
      data-search
      placeholder="Part of a name  ( / )"
      aria-label="Part of a session's name"
      defaultValue={text}
      spellcheck={false}
      onInput={(event) => {
        const { value } = event.currentTarget;
        clearTimeout(timer.current);
        timer.current = setTimeout(() => change({ q: value }), 200);
      }}
    />
  );
}

/** The rows that the window shows, and space for the others: a hundred thousand scroll as well as ten. */
function List({ list, filtered }: { list: SessionList; filtered: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(800);
  /** The name of the chosen session: rows move when others come. */
  const chosen = useSignal("");
  const first = useComputed(() => Math.max(0, Math.floor(top.value / ROW) - 5));
  const last = useComputed(() => Math.ceil((top.value + height.value) / ROW) + 5);
  const rows = list.rows.value;

  useEffect(() => {
    void list.load();
    // Under a status a refresh may take longer than the time between two.
    const end = repeat(() => list.refresh(first.peek(), last.peek()), REFRESH_MS);
    const measure = () => {
      height.value = box.current?.clientHeight ?? 800;
    };
    measure();
    addEventListener("resize", measure);
    return () => {
      end();
      removeEventListener("resize", measure);
    };
  }, [list]);

  useEffect(() => {
    if (last.value >= rows.length && rows.length > 0) void list.load();
  }, [last.value, rows.length]);

  const choose = (by: number) => {
    const rows = list.rows.peek();
    const at = rows.findIndex(({ session }) => session === chosen.peek());
    const now = Math.min(rows.length - 1, Math.max(0, at + by));
    chosen.value = rows[now]?.session ?? "";
    const { current } = box;
    if (!current) return;
    if (now * ROW < current.scrollTop) current.scrollTop = now * ROW;
    else if ((now + 1) * ROW > current.scrollTop + current.clientHeight)
      current.scrollTop = (now + 1) * ROW - current.clientHeight;
  };
  useKeys({
    j: () => choose(1),
    k: () => choose(-1),
    Enter: () => {
      if (chosen.peek()) go(to("session", [chosen.peek()]));
    },
  });

  // A repeated attempt changes nothing that is read aloud.
  const reading = list.reading.value && !list.error.value;
  return (
    <>
      <div class="rows head" aria-hidden="true">
        <div class="row">
          <span />
          <span>Session</span>
          <span>Status</span>
          <span class="rate">Rate</span>
          <span class="number">Events</span>
          <span class="number devices">Devices</span>
          <span class="when">Created</span>
        </div>
      </div>
      <div
        class="rows"
        ref={box}
        onScroll={(event) => {
          top.value = event.currentTarget.scrollTop;
        }}
      >
        <ol style={{ height: rows.length * ROW }} aria-label="Sessions, the newest first">
          {rows.slice(first.value, last.value).map((row, at) => (
            <SessionRow
              key={row.session}
              row={row}
              at={first.value + at}
              all={list.more.value ? -1 : rows.length}
              chosen={row.session === chosen.value}
            />
          ))}
        </ol>
      </div>
      <p class="foot soft" aria-live="polite">
        {reading
          ? "Reading…"
          : rows.length === 0
            ? list.error.value
              ? "No session could be read."
              : filtered
                ? `No session found${list.more.value ? " so far" : ""}.`
                : "There is no session yet: the first event makes one."
            : `${count(rows.length)} session${rows.length > 1 ? "s" : ""} read${list.more.value ? ", there are more" : ""}.`}{" "}
        {list.more.value && !reading && (
          <button type="button" class="plain" onClick={() => void list.load()}>
            Read on
          </button>
        )}
      </p>
    </>
  );
}

function SessionRow({ row, at, all, chosen }: { row: Row; at: number; all: number; chosen: boolean }) {
  const lately = row.rates.slice(-3).reduce((sum, rate) => sum + rate, 0);
  const live = lately > 0;
  return (
    <li
      class={chosen ? "row chosen" : "row"}
      style={{ transform: `translateY(${at * ROW}px)` }}
      aria-setsize={all}
      aria-posinset={at + 1}
      data-session={row.session}
    >
      <span class={live ? "dot live" : "dot"} title={live ? "Events arrive" : "Silent"}>
        <span class="heard">{live ? "live" : "silent"}</span>
      </span>
      <a href={to("session", [row.session])} dir="auto" title={row.session} aria-current={chosen ? "true" : undefined}>
        {row.session}
      </a>
      <span>
        <Badge state={row.state} title={row.runs.length > 1 ? `${row.runs.length} runs` : ""} />
      </span>
      <span class="rate">
        <Spark
          values={row.rates}
          label={`${count(lately)} ${lately === 1 ? "event" : "events"} in the last 6 seconds`}
        />
      </span>
      <span class="number">{count(row.next_offset)}</span>
      <span class="number devices">{row.devices || ""}</span>
      <time class="when" dateTime={row.created} title={row.created}>
        {ago(row.created)}
      </time>
    </li>
  );
}
