/** The devices of a session as they are marked on its tape. */

import type { DeviceRecord } from "../devices/list.tsx";
import { count } from "../format.ts";
import type { Playhead } from "./drawing.ts";

/** A device's mark, with each transport that it reads over; none for a device without a position. */
export function playheadOf(
  { device, user, seen, delivered, connected, transports }: DeviceRecord,
  end: number,
): Playhead[] {
  const cursor = seen ?? delivered;
  const offset = Number(cursor?.split("-")[1] ?? Number.NaN);
  if (Number.isNaN(offset)) return [];
  const lag = Math.max(0, end - offset);
  // A device may read over several connections at once.
  const by = transports.length ? ` · ${[...new Set(transports)].join(", ")}` : "";
  const label = `${user ? `${user}/` : ""}${device}${by}${lag ? ` −${count(lag)}` : ""}`;
  return [{ label, offset: Math.max(0, offset - 1), connected }];
}
