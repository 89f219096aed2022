/** The options of a publisher in a Temporal activity. */

import { createHash } from "node:crypto";

/** The fields of `Context.current().info` of `@temporalio/activity` that are read. */
export interface ActivityInfo {
  readonly activityId: string;
  readonly attempt: number;
  readonly workflowExecution: { readonly workflowId: string; readonly runId: string };
  readonly workflowNamespace?: string;
}

const LONGEST_ID = 180;

/**
 * Who an activity publishes as: each of its attempts fences and supersedes the ones before.
 *
 *     new SessionPublisher({ ...fromActivity(Context.current().info), token })
 */
export function fromActivity(info: ActivityInfo) {
  const { workflowId, runId } = info.workflowExecution;
  return {
    session: workflowId,
    publisher: `${visible(runId)}:${visible(info.activityId)}`,
    attempt: info.attempt,
    run: runId,
    activity: info.activityId,
    workflow: workflowId,
    ...(info.workflowNamespace !== undefined && { namespace: info.workflowNamespace }),
  };
}

function visible(id: string): string {
  const fits = id.length <= LONGEST_ID && /^[\x21-\x7e]+$/.test(id);
  return fits ? id : createHash("sha256").update(id).digest("hex");
}
