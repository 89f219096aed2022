/** Small parts that several views have. */

import { useSignal } from "@preact/signals";
import type { WakelineError } from "@wakeline/client";
import type { ComponentChildren } from "preact";
import { route, to } from "./route.ts";

/** What went wrong, and what to do. */
export function Failure({ error }: { error: Pick<WakelineError, "message" | "hint"> | undefined }) {
  if (!error) return null;
  return (
    <div class="failure" role="alert">
      <strong>{error.message}</strong> {error.hint}
    </div>
  );
}

const STATES: Readonly<Record<string, string>> = {
  running: "run",
  completed: "good",
  failed: "bad",
  timed_out: "bad",
  terminated: "bad",
  canceled: "warm",
  unknown: "quiet",
  pending: "warm",
  delivered: "good",
  cancelled: "quiet",
  dead: "bad",
};

/** A state in a word, with its colour. */
export function Badge({ state, title }: { state: string; title?: string }) {
  return (
    <span class={`badge ${STATES[state] ?? "quiet"}`} title={title}>
      {state.replace("_", " ")}
    </span>
  );
}

/** Copy a text; the button says so. */
export function Copy({ text, children }: { text: string | (() => string); children: ComponentChildren }) {
  const done = useSignal("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(typeof text === "string" ? text : text());
      done.value = "Copied";
    } catch {
      done.value = "Not allowed";
    }
    setTimeout(() => {
      done.value = "";
    }, 1500);
  };
  return (
    <button type="button" class="plain" onClick={copy}>
      <span aria-live="polite">{done.value || children}</span>
    </button>
  );
}

/** A link to this view as the gateway's JSON. */
export function AsJson() {
  const { view, parts, query } = route.value;
  return (
    <a class="plain" href={to(`${view}.json`, parts, Object.fromEntries(query))} title="What the gateway answers">
      .json
    </a>
  );
}

/** A line of numbers, without axes. */
export function Spark({ values, label }: { values: readonly number[]; label: string }) {
  const most = Math.max(1, ...values);
  const points = values.map((value, at) => `${at * 3},${15 - (14 * value) / most}`).join(" ");
  return (
    <svg class="spark" viewBox="0 0 72 16" role="img" aria-label={label}>
      <title>{label}</title>
      <polyline points={points} />
    </svg>
  );
}
