/** Numbers, times and JSON as people read them. */

const COUNT = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export function count(value: number): string {
  return COUNT.format(value);
}

/** A time as a clock shows it, with milliseconds. */
export function clock(time: string): string {
  return `${CLOCK.format(new Date(time))}.${String(new Date(time).getMilliseconds()).padStart(3, "0")}`;
}

export function day(time: string): string {
  return DAY.format(new Date(time));
}

/** How long ago a time was. */
export function ago(time: string, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  return seconds < 1 ? "now" : `${span(seconds * 1000)} ago`;
}

/** A length of time. */
export function span(ms: number): string {
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1).replace(/\.0$/, "") : Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1).replace(/\.0$/, "") : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

export function bytes(value: number): string {
  if (value < 1024) return `${value} B`;
  const units = ["KiB", "MiB", "GiB"];
  let at = -1;
  let rest = value;
  do {
    rest /= 1024;
    at += 1;
  } while (rest >= 1024 && at < units.length - 1);
  return `${rest.toFixed(rest < 10 ? 1 : 0)} ${units[at]}`;
}

/** One line of a value, cut to some characters. */
export function brief(value: unknown, most = 240): string {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

export function pretty(value: unknown): string {
  return JSON.stringify(value, null, 2) ?? "undefined";
}

/** The number of bytes of a value as JSON. */
export function sizeOf(value: unknown): number {
  return new TextEncoder().encode(JSON.stringify(value) ?? "").length;
}
