/** Which runs of a session an input can be sent to. */

import type { Run } from "@wakeline/client";

/** The open runs of workflows: a standalone activity receives no inputs. */
export function receivers(runs: readonly Run[]): Run[] {
  return runs.filter(({ kind, status }) => status === "running" && kind !== "activity");
}
