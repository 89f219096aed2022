import { inject, onTestFinished } from "vitest";
import { type Client, type ConnectOptions, connect } from "../src/index.ts";

export const url = inject("open");
export const keyed = inject("keyed");

/** A client that is closed at the end of the test. */
export function client(options: ConnectOptions = {}): Client {
  const made = connect({ url, ...options });
  onTestFinished(() => made.close());
  return made;
}

export const numbers = (from: number, count: number) =>
  Array.from({ length: count }, (_, n) => ({ topic: "n", data: from + n }));
