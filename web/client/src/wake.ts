/** What a browser reports about the page and the network: moments at which connections are checked at once. */

export interface Wakeable {
  /** The page or the network is back: check the connections. */
  wake(): void;
  /** The page is put away: end the connections, so that it may be kept. */
  sleep(): void;
}

export interface Page {
  /** Resolves while the page is not put away. */
  awake(): Promise<void>;
  end(): void;
}

/** Listen to the page's events; outside of a page there are none. */
export function listen({ wake, sleep }: Wakeable): Page {
  if (typeof addEventListener !== "function") return { awake: async () => undefined, end: () => undefined };
  const stopping = new AbortController();
  const { signal } = stopping;
  let away: Promise<void> | undefined;
  let back: (() => void) | undefined;
  const leave = () => {
    away ??= new Promise((resolve) => {
      back = resolve;
    });
    sleep();
  };
  const come = () => {
    back?.();
    away = back = undefined;
    wake();
  };
  // A page with a connection is not kept for the way back; a frozen one cannot keep its connection alive.
  addEventListener("pagehide", leave, { signal });
  // iOS shows a kept page again with `pageshow` alone.
  addEventListener("pageshow", come, { signal });
  addEventListener("online", wake, { signal });
  addEventListener("offline", wake, { signal });
  if (typeof document === "object") {
    document.addEventListener("freeze", leave, { signal });
    document.addEventListener("resume", come, { signal });
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && wake(), { signal });
  }
  return {
    awake: async () => away,
    end() {
      stopping.abort();
      back?.();
    },
  };
}
