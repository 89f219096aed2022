/** Draws a tape on a canvas. */

import { hueOf, type Palette } from "./colours.ts";
import type { Bar, Lane, Place, Tape } from "./tape.ts";

export const LANE = 26;
export const RULER = 44;

export type Axis = "time" | "offset";

/** What a canvas shows of a tape: the range of one of its axes. */
export interface Scale {
  readonly axis: Axis;
  readonly from: number;
  readonly to: number;
  readonly width: number;
}

/** A device's place on the tape. */
export interface Playhead {
  readonly label: string;
  readonly offset: number;
  readonly connected: boolean;
}

export interface Scene {
  readonly tape: Tape;
  readonly scale: Scale;
  readonly palette: Palette;
  readonly playheads: readonly Playhead[];
  /** Where the reader is. */
  readonly head: Place | undefined;
  readonly selected: Place | undefined;
}

export function xOf(scale: Scale, place: Place): number {
  const { from, to, width, axis } = scale;
  return 6 + ((place[axis] - from) / Math.max(1, to - from)) * (width - 12);
}

/** The value of the axis at a place of the canvas. */
export function valueAt(scale: Scale, x: number): number {
  const { from, to, width } = scale;
  return from + ((x - 6) / (width - 12)) * Math.max(1, to - from);
}

export function heightOf(tape: Tape): number {
  return RULER + Math.max(1, tape.lanes.length) * LANE + 4;
}

export function draw(context: CanvasRenderingContext2D, scene: Scene, places: ReadonlyMap<number, Place>): void {
  const { tape, scale, palette } = scene;
  const height = heightOf(tape);
  context.clearRect(0, 0, scale.width, height);
  context.lineWidth = 1;
  tape.lanes.forEach((lane, at) => {
    const top = RULER + at * LANE;
    context.fillStyle = palette.of("line");
    context.fillRect(0, top + LANE - 0.5, scale.width, 0.5);
    for (const bar of lane.bars) drawBar(context, scene, bar, top);
    drawTicks(context, scene, lane, top);
  });
  const rows: number[][] = [[], []];
  for (const playhead of scene.playheads) drawPlayhead(context, scene, playhead, places, rows);
  if (scene.selected) drawLine(context, scene, scene.selected, palette.of("warm"), height);
  if (scene.head) drawLine(context, scene, scene.head, palette.of("accent"), height);
}

const FILLS: Readonly<Record<string, string>> = {
  running: "accent-wash",
  waiting: "warm-wash",
  retrying: "warm-wash",
  asking: "warm-wash",
  attempt: "sunken",
};

function drawBar(context: CanvasRenderingContext2D, { scale, palette, tape }: Scene, bar: Bar, top: number): void {
  const left = xOf(scale, bar.from);
  const right = Math.max(left + 2, xOf(scale, bar.to ?? tape.last));
  if (right < 0 || left > scale.width) return;
  const [kind = "", status] = bar.kind.split(" ");
  if (kind === "end") {
    context.fillStyle = palette.of(status === "completed" ? "good" : status === "canceled" ? "warm" : "bad");
    context.fillRect(left - 2, top + 3, 4, LANE - 7);
    return;
  }
  context.fillStyle = palette.of(FILLS[kind] ?? "sunken");
  context.fillRect(left, top + 3, right - left, LANE - 7);
  if (kind === "waiting" || kind === "retrying") hatch(context, left, top + 3, right - left, palette.of("warm"));
}

/** Hatch a rectangle: what is hatched waits, or does not count. */
function hatch(context: CanvasRenderingContext2D, left: number, top: number, width: number, colour: string): void {
  context.save();
  context.beginPath();
  context.rect(left, top, width, LANE - 7);
  context.clip();
  context.strokeStyle = colour;
  context.globalAlpha = 0.55;
  context.beginPath();
  const end = Math.min(left + width, left + 4000);
  for (let x = left - LANE; x < end; x += 6) {
    context.moveTo(x, top + LANE - 7);
    context.lineTo(x + LANE - 7, top);
  }
  context.stroke();
  context.restore();
}

function drawTicks(context: CanvasRenderingContext2D, { scale, palette }: Scene, lane: Lane, top: number): void {
  let goneFrom: number | undefined;
  let goneTo = 0;
  for (const tick of lane.ticks) {
    const x = xOf(scale, tick);
    if (x < -2 || x > scale.width + 2) continue;
    const hue = hueOf(tick.topic);
    context.fillStyle = hue === undefined ? palette.of("soft") : (palette.hues[hue] ?? "");
    context.globalAlpha = tick.gone ? 0.35 : 1;
    if (tick.topic.startsWith("$")) {
      context.beginPath();
      context.arc(x, top + LANE / 2, 3, 0, 2 * Math.PI);
      context.fill();
    } else context.fillRect(x - 0.75, top + 6, 1.5, LANE - 13);
    context.globalAlpha = 1;
    if (tick.gone) {
      goneFrom ??= x;
      goneTo = x;
    } else if (goneFrom !== undefined) {
      hatch(context, goneFrom - 2, top + 3, goneTo - goneFrom + 4, palette.of("bad"));
      goneFrom = undefined;
    }
  }
  if (goneFrom !== undefined) hatch(context, goneFrom - 2, top + 3, goneTo - goneFrom + 4, palette.of("bad"));
}

function drawPlayhead(
  context: CanvasRenderingContext2D,
  { scale, palette }: Scene,
  { label, offset, connected }: Playhead,
  places: ReadonlyMap<number, Place>,
  rows: number[][],
): void {
  const place = places.get(offset);
  if (!place) return;
  const x = xOf(scale, place);
  context.fillStyle = palette.of(connected ? "good" : "soft");
  context.beginPath();
  context.moveTo(x - 5, RULER - 10);
  context.lineTo(x + 5, RULER - 10);
  context.lineTo(x, RULER - 2);
  context.fill();
  context.font = "11px system-ui, sans-serif";
  const width = context.measureText(label).width;
  const left = Math.max(2, Math.min(x - width / 2, scale.width - width - 2));
  // Labels that would cover others go into the row above; what has no room there is in the list of devices.
  const free = rows.findIndex((taken) => taken.every((other) => Math.abs(other - left) > width + 6));
  if (free < 0) return;
  rows[free]?.push(left);
  context.fillText(label, left, RULER - 14 - 14 * free);
}

function drawLine(
  context: CanvasRenderingContext2D,
  { scale }: Scene,
  place: Place,
  colour: string,
  height: number,
): void {
  const x = xOf(scale, place);
  context.fillStyle = colour;
  context.fillRect(x - 1, RULER - 8, 2, height - RULER + 8);
}
