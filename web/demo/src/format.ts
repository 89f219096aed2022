import type { Counter, Status } from "./wire.ts";

const numbers = new Intl.NumberFormat("en-US");

export function number(value: number): string {
  return numbers.format(value);
}

export function plural(value: number, noun: string): string {
  return `${number(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** `sent 4,812 · missing 0 · duplicate 0` as its three parts, for they are set apart on the page. */
export function counterParts(counter: Counter): string[] {
  return [
    `sent ${number(counter.sent)}`,
    `missing ${number(counter.missing)}`,
    `duplicate ${number(counter.duplicate)}`,
  ];
}

export function seconds(milliseconds: number): string {
  const whole = Math.max(0, Math.floor(milliseconds / 1000));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** A status as people write it. */
export function statusText(status: Status): string {
  return status === "timed_out" ? "timed out" : status;
}
