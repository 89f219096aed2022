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

/** `navigator.connection`, which not every browser has; on a desktop it has no `type`. */
interface Connection extends EventTarget {
  readonly type?: string;
  readonly effectiveType?: string;
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
  hearNetwork(wake, signal);
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

/** Wake when the device moves to another network without being offline, such as from Wi-Fi to cellular. */
function hearNetwork(wake: () => void, signal: AbortSignal): void {
  const { connection } = navigator as { connection?: Connection };
  const kind = () => connection?.type ?? connection?.effectiveType;
  let last = kind();
  const changed = () => {
    // The event also reports each new estimate of the speed, for which no stream is to be made anew.
    if (last === kind()) return;
    last = kind();
    wake();
  };
  connection?.addEventListener("change", changed, { signal });
}
