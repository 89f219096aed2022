/** Whether a gateway answers, asked on every connection that a browser may have to it. */

import type { Http } from "./http.ts";

/** Browsers open so many connections to an origin over HTTP/1.1. */
const MOST_CONNECTIONS = 6;

/**
 * Return whether the gateway, or whatever has its address, stays silent.
 *
 * Chromium lets the preflight of a request that was aborted wait on. Six of them on dead connections would leave none for
 * another request. These requests have no preflight: the browser closes the dead connections that they get.
 */
export async function isSilent({ url, fetch, timing }: Http): Promise<boolean> {
  // Outside a browser, and on a page of the gateway's own origin, there are no preflights.
  if (!globalThis.location || location.origin === new URL(url).origin) return false;
  const signal = AbortSignal.timeout(timing.connect);
  const ask = () => fetch(`${url}/healthz`, { mode: "no-cors", cache: "no-store", signal });
  try {
    await Promise.race(Array.from({ length: MOST_CONNECTIONS }, ask));
    return false;
  } catch {
    // Any answer will do, also none that this page may read: only silence says that the next request would wait, too.
    return signal.aborted;
  }
}
