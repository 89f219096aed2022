/** One session: its tape, its events and its conversation, and what can be sent to it. */

import { useComputed } from "@preact/signals";
import type { SessionEvent, SessionInfo } from "@wakeline/client";
import { useEffect, useMemo } from "preact/hooks";
import { sessionPath, stateOf } from "../api.ts";
import { type DeviceRecord, Devices } from "../devices/list.tsx";
import { Detail } from "../event/detail.tsx";
import { count, day } from "../format.ts";
import { call, client } from "../gateway.ts";
import { useKeys } from "../keys.ts";
import { AsJson, Badge, Failure } from "../parts.tsx";
import { usePolled } from "../polling.ts";
import { change, changed, route, to } from "../route.ts";
import { Conversation } from "./conversation.tsx";
import { Events } from "./events.tsx";
import { filterOf } from "./filter.ts";
import { SessionLog } from "./log.ts";
import { Player } from "./player.ts";
import { playheadOf } from "./playheads.ts";
import { Requests } from "./requests.tsx";
import { Send } from "./send.tsx";
import { Strip } from "./strip.tsx";

const PANES: readonly (readonly [name: string, title: string])[] = [
  ["", "Events"],
  ["chat", "Conversation"],
  ["devices", "Devices"],
  ["send", "Send"],
];

export function SessionView() {
  const name = route.value.parts[0] ?? "";
  // Another session is another reading.
  return <Session key={name} name={name} />;
}

function Session({ name }: { name: string }) {
  const log = useMemo(() => new SessionLog(client(), name), [name]);
  const player = useMemo(() => new Player(log), [log]);
  useEffect(() => {
    log.follow();
    return () => {
      player.stop();
      log.close();
    };
  }, [log]);
  useKeys({
    " ": () => player.toggle(),
    ArrowLeft: () => void player.step(-1),
    ArrowRight: () => void player.step(1),
    Escape: () => change({ e: "" }),
  });

  const filter = route.value.query.get("filter") ?? "";
  const shown = useComputed<readonly SessionEvent[]>(() => {
    void log.version.value;
    const { query } = route.value;
    const events = log.events.slice(0, player.count.value);
    const text = query.get("filter");
    return text ? events.filter(filterOf(text)) : events;
  });
  const devices = usePolled((signal) => call<DeviceList>("GET", sessionPath(name, "devices"), { signal }), 2000, name);
  const record = usePolled((signal) => call<SessionInfo>("GET", sessionPath(name), { signal }), 2000, name);
  const now = record.data.value ?? log.record.value;
  const end = now?.next_offset ?? 0;
  const playheads = (devices.data.value?.devices ?? []).flatMap((device) => playheadOf(device, end));
  const chosen = Number(route.value.query.get("e") ?? Number.NaN);
  const event = useComputed(() => {
    void log.version.value;
    const { query } = route.value;
    const offset = Number(query.get("e") ?? Number.NaN);
    return log.events.find((one) => one.offset === offset);
  });
  useEffect(() => {
    // A link to an event beside those that are held.
    const [first, last] = [log.events[0], log.events.at(-1)];
    if (first && last && (chosen < first.offset || (chosen > last.offset && log.hasLater))) {
      void log.seek(chosen, () => undefined);
    }
  }, [chosen, log.events.length > 0]);
  const pane = route.value.query.get("pane") ?? "";

  return (
    <>
      <Head name={name} record={now} log={log} />
      <Failure error={log.error.value ?? refusalOf(log)} />
      <Requests name={name} version={log.version.value} />
      <Strip log={log} player={player} playheads={playheads} />
      <div class="bar panes">
        <div class="line" role="tablist" aria-label="Panes">
          {PANES.map(([key, title]) => (
            <a
              key={key}
              role="tab"
              aria-selected={key === pane}
              aria-controls="pane"
              class="tab"
              href={changed({ pane: key })}
            >
              {title}
            </a>
          ))}
        </div>
        {pane === "" && (
          <input
            type="search"
            class="filter"
            data-search
            aria-label="Filter of events"
            placeholder="topic:status data.state~pack -topic:$*  ( / )"
            spellcheck={false}
            defaultValue={filter}
            onInput={(input) => change({ filter: input.currentTarget.value })}
          />
        )}
        {pane === "" && filter && (
          <span class="soft" aria-live="polite">
            {count(shown.value.length)} of {count(player.count.value)}
          </span>
        )}
      </div>
      <div class={event.value ? "columns with-detail" : "columns"} id="pane" role="tabpanel" aria-label="Pane">
        {pane === "" && <Events log={log} shown={shown} />}
        {(pane === "" || pane === "chat") && <Conversation log={log} count={player.count} />}
        {pane === "devices" && <Devices name={name} polled={devices} end={end} />}
        {pane === "send" && <Send name={name} record={now} />}
        {event.value && <Detail name={name} event={event.value} log={log} record={now} />}
      </div>
    </>
  );
}

interface DeviceList {
  readonly devices: readonly DeviceRecord[];
}

function refusalOf(log: SessionLog) {
  const state = log.state.value;
  return state.status === "refused" || state.status === "offline" ? state.error : undefined;
}

function Head({ name, record, log }: { name: string; record: SessionInfo | undefined; log: SessionLog }) {
  const { status } = log.state.value;
  return (
    <div class="bar">
      <h1>
        <a class="up soft" href={to("sessions")} aria-label="All sessions">
          ‹
        </a>{" "}
        <bdi>{name}</bdi>
      </h1>
      {record && (
        <>
          <Badge state={stateOf(record)} />
          <span class="soft">
            {count(record.next_offset)} {record.next_offset === 1 ? "event" : "events"} · {record.devices}{" "}
            {record.devices === 1 ? "device" : "devices"} · since {day(record.created)}
          </span>
        </>
      )}
      <span class={log.live.value && status === "live" ? "badge good" : "badge quiet"} aria-live="polite">
        {log.live.value ? status : "a part of the log"}
      </span>
      <AsJson />
    </div>
  );
}
