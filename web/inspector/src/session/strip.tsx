/** The tape on the page: its lanes, the devices on it, and the place of the reader, which can be dragged. */

import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { clock, count, span } from "../format.ts";
import { change, route } from "../route.ts";
import { paletteOf } from "./colours.ts";
import { type Axis, draw, heightOf, LANE, type Playhead, RULER, type Scale, valueAt } from "./drawing.ts";
import type { SessionLog } from "./log.ts";
import { indexAfter, type Player } from "./player.ts";
import { type Place, type Tape, tapeOf } from "./tape.ts";

const SPEEDS = [1, 4, 16];

export function Strip({ log, player, playheads }: { log: SessionLog; player: Player; playheads: readonly Playhead[] }) {
  const axis: Axis = route.value.query.get("axis") === "offset" ? "offset" : "time";
  const zoom = useSignal<readonly [number, number] | undefined>(undefined);
  const tape = useComputed(() => {
    void log.version.value;
    return tapeOf(log.events);
  });
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useSignal(0);
  const scheme = useSignal("");
  const { first, last } = tape.value;
  const [from, to] = zoom.value ?? [first[axis], last[axis]];
  const scale: Scale = { axis, from, to, width: width.value };
  const height = heightOf(tape.value);

  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      width.value = Math.floor(entry?.contentRect.width ?? 0);
    });
    if (box.current) observer.observe(box.current);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const turn = () => {
      scheme.value = dark.matches ? "dark" : "light";
    };
    turn();
    dark.addEventListener("change", turn);
    return () => {
      observer.disconnect();
      dark.removeEventListener("change", turn);
    };
  }, []);

  const placeOf = (offset: number | undefined): Place | undefined => {
    if (offset === undefined) return undefined;
    const event = log.events[Math.max(0, player.count.peek() - 1)];
    return event && { offset: event.offset, time: Date.parse(event.time) };
  };
  const chosen = Number(route.value.query.get("e") ?? Number.NaN);

  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || !width.value) return;
    const ratio = devicePixelRatio || 1;
    element.width = width.value * ratio;
    element.height = height * ratio;
    context.scale(ratio, ratio);
    const places = placesOf(log, [...playheads.map(({ offset }) => offset), chosen]);
    const palette = paletteOf(element.parentElement ?? document.body);
    const head = placeOf(player.head.value);
    draw(context, { tape: tape.value, scale, palette, playheads, head, selected: places.get(chosen) }, places);
  });

  const seek = (event: PointerEvent) => {
    const value = valueAt(scale, event.offsetX);
    player.at(nearest(tape.value, log, axis, value));
    // Dragged beyond what is held: read more, and the next movement reaches it.
    if (value < first[axis]) void log.earlier();
    else if (value > last[axis]) void log.later();
  };

  return (
    <section class="strip card" aria-label="Tape">
      <Controls
        log={log}
        player={player}
        axis={axis}
        zoomed={zoom.value !== undefined}
        fit={() => (zoom.value = undefined)}
      />
      <div class="lanes">
        <ol class="titles" style={{ paddingTop: RULER }} aria-label="Lanes">
          {tape.value.lanes.map((lane) => (
            <li key={lane.id} class={lane.kind} style={{ height: LANE }} title={lane.title}>
              <bdi>{lane.title}</bdi>
              <span class="heard">
                {count(lane.ticks.length)} {lane.ticks.length === 1 ? "event" : "events"};{" "}
                {lane.bars.map(({ label }) => label).join(", ")}
              </span>
            </li>
          ))}
        </ol>
        <div
          class="canvas"
          ref={box}
          role="slider"
          tabIndex={0}
          aria-label="Place in the log"
          aria-valuemin={first.offset}
          aria-valuemax={last.offset}
          aria-valuenow={player.head.value ?? last.offset}
          aria-valuetext={`offset ${player.head.value ?? last.offset}`}
          onPointerDown={(event) => {
            event.currentTarget.setPointerCapture(event.pointerId);
            seek(event);
          }}
          onPointerMove={(event) => {
            if (event.buttons & 1) seek(event);
          }}
          onWheel={(event) => {
            if (!event.ctrlKey) return;
            event.preventDefault();
            const middle = valueAt(scale, event.offsetX);
            const factor = event.deltaY > 0 ? 1.25 : 0.8;
            zoom.value = [middle - (middle - from) * factor, middle + (to - middle) * factor];
          }}
          onKeyDown={(event) => {
            const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 50, PageUp: -50 }[event.key];
            if (step) void player.step(step);
            else if (event.key === "Home") void player.seek(log.record.peek()?.first_offset ?? 0);
            else if (event.key === "End") player.toEnd();
            else return;
            event.preventDefault();
          }}
        >
          <canvas data-scheme={scheme.value} ref={canvas} style={{ height }} />
        </div>
      </div>
      {(log.hasEarlier || log.hasLater) && <Whole log={log} player={player} first={first} last={last} />}
    </section>
  );
}

function Controls({
  log,
  player,
  axis,
  zoomed,
  fit,
}: {
  log: SessionLog;
  player: Player;
  axis: Axis;
  zoomed: boolean;
  fit: () => void;
}) {
  const { head } = player;
  const at = log.events[Math.max(0, player.count.value - 1)];
  const end = log.live.value ? log.events.at(-1) : undefined;
  return (
    <div class="line controls">
      <button type="button" onClick={() => player.toggle()} title="Replay from here, or pause  ( space )">
        {player.playing.value ? "Pause" : "Replay"}
      </button>
      <select
        aria-label="Speed of the replay"
        value={player.speed.value}
        onChange={(event) => {
          player.speed.value = Number(event.currentTarget.value);
        }}
      >
        {SPEEDS.map((speed) => (
          <option key={speed} value={speed}>
            ×{speed}
          </option>
        ))}
      </select>
      <button type="button" aria-pressed={head.value === undefined && log.live.value} onClick={() => player.toEnd()}>
        Live
      </button>
      {at && (
        <span class="soft" aria-live="off">
          {head.value === undefined
            ? end && "at the end"
            : `offset ${count(at.offset)}, ${clock(at.time)}${end ? ` · ${span(Date.parse(end.time) - Date.parse(at.time))} before the end` : ""}`}
        </span>
      )}
      <Seek player={player} />
      {log.hasEarlier && (
        <button type="button" onClick={() => void log.earlier()}>
          Earlier events
        </button>
      )}
      {zoomed && (
        <button type="button" onClick={fit}>
          Fit
        </button>
      )}
      <button
        type="button"
        onClick={() => change({ axis: axis === "time" ? "offset" : "" })}
        title="What a step to the right stands for; Ctrl and the wheel zoom"
      >
        By {axis}
      </button>
    </div>
  );
}

/** The whole log, of which the tape shows a part: dragged to another place, it reads the part that is there. */
function Whole({ log, player, first, last }: { log: SessionLog; player: Player; first: Place; last: Place }) {
  const begin = log.record.value?.first_offset ?? 0;
  const end = Math.max(last.offset, (log.record.value?.next_offset ?? 0) - 1);
  const share = (offset: number) => `${(100 * (offset - begin)) / Math.max(1, end - begin)}%`;
  return (
    <label class="whole">
      <span class="soft">
        Offsets {count(first.offset)} to {count(last.offset)} of {count(end)}
      </span>
      <input
        type="range"
        aria-label="Place in the whole log"
        min={begin}
        max={end}
        value={player.head.value ?? last.offset}
        style={{ "--from": share(first.offset), "--to": share(last.offset) }}
        onChange={(event) => void player.seek(event.currentTarget.valueAsNumber)}
      />
    </label>
  );
}

/** Go to an offset, or to a time. */
function Seek({ player }: { player: Player }) {
  const field = useRef<HTMLInputElement>(null);
  const submit = async (event: Event) => {
    event.preventDefault();
    const text = field.current?.value.trim() ?? "";
    if (!text) return;
    const time = /^\d+$/.test(text) ? undefined : Date.parse(text);
    if (time !== undefined && Number.isNaN(time)) {
      field.current?.setCustomValidity("An offset such as 17, or a time such as 2026-11-21T05:14:43Z");
      field.current?.reportValidity();
      return;
    }
    await player.seek(time === undefined ? Number(text) : `time:${new Date(time).toISOString()}`);
  };
  return (
    <form class="line" onSubmit={submit}>
      <input
        ref={field}
        class="seek"
        aria-label="Go to an offset or a time"
        placeholder="offset or time"
        onInput={(event) => event.currentTarget.setCustomValidity("")}
      />
      <button type="submit">Go</button>
    </form>
  );
}

function placesOf(log: SessionLog, offsets: readonly number[]): Map<number, Place> {
  const places = new Map<number, Place>();
  for (const offset of offsets) {
    if (Number.isNaN(offset)) continue; // no event is chosen
    // Offsets are missing where retention removed events: the event before stands for them.
    const event = log.events[Math.max(0, indexAfter(log.events, offset) - 1)];
    if (event) places.set(offset, { offset: event.offset, time: Date.parse(event.time) });
  }
  return places;
}

/** The offset of the last event at or before a place of the axis. */
function nearest(tape: Tape, log: SessionLog, axis: Axis, value: number): number {
  let found = tape.first.offset;
  for (const event of log.events) {
    const at = axis === "offset" ? event.offset : Date.parse(event.time);
    if (at > value) break;
    found = event.offset;
  }
  return found;
}
