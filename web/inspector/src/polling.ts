/** Answers of the gateway that are asked for again and again while a view is shown. */

import { type Signal, useSignal } from "@preact/signals";
import type { WakelineError } from "@wakeline/client";
import { useEffect, useRef } from "preact/hooks";

export interface Polled<T> {
  readonly data: Signal<T | undefined>;
  readonly error: Signal<WakelineError | undefined>;
  /** Ask again now. */
  refresh(): void;
}

/** Do some work now and again `ms` milliseconds after it has ended, not while the page is hidden; return what stops it. */
export function repeat(work: () => Promise<void>, ms: number): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let stopped = false;
  const next = async () => {
    if (!document.hidden) await work();
    if (!stopped) timer = setTimeout(next, ms);
  };
  void next();
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}

/**
 * Ask now and then every `ms` milliseconds, not while the page is hidden. With another `key` the answers are those to
 * another question; with another `version` the same question is asked at once.
 */
export function usePolled<T>(
  ask: (signal: AbortSignal) => Promise<T>,
  ms: number,
  key: string,
  version = 0,
): Polled<T> {
  const data = useSignal<T | undefined>(undefined);
  const error = useSignal<WakelineError | undefined>(undefined);
  const round = useSignal(0);
  const asked = useRef(key);
  if (asked.current !== key) {
    asked.current = key;
    data.value = error.value = undefined;
  }
  useEffect(() => {
    const stop = new AbortController();
    const end = repeat(async () => {
      try {
        const answer = await ask(stop.signal);
        if (stop.signal.aborted) return;
        data.value = answer;
        error.value = undefined;
      } catch (thrown) {
        if (stop.signal.aborted) return;
        error.value = thrown as WakelineError;
      }
    }, ms);
    return () => {
      end();
      stop.abort();
    };
  }, [key, ms, version, round.value]);
  return { data, error, refresh: () => round.value++ };
}
