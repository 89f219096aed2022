/** Links to Temporal's web UI. */

import type { Run } from "@wakeline/client";

/**
 * The address of a workflow's run, undefined for a standalone activity, which is not at a workflow's address.
 * `ui` may end in `/namespaces/NAME`, which is then that of the gateway's own namespace.
 */
export function temporalLink(ui: string, run: Run): string | undefined {
  if (run.kind === "activity") return undefined;
  const [, base = "", own = "default"] = /^(.*?)(?:\/namespaces\/([^/]+))?\/*$/.exec(ui) ?? [];
  const namespace = encodeURIComponent(run.namespace ?? decodeURIComponent(own));
  return `${base}/namespaces/${namespace}/workflows/${encodeURIComponent(run.workflow_id)}/${encodeURIComponent(run.run_id)}`;
}
