/**
 * Publishing from Node: activities of TypeScript workers, and services.
 *
 *     await using publisher = new SessionPublisher({ ...fromActivity(Context.current().info) });
 *     const answer = publisher.topic("answer", { append: "text" }).message("m1");
 *     for await (const token of model()) await answer.append(token);
 */

export { WakelineError } from "../errors.ts";
export { type ActivityInfo, fromActivity } from "./activity.ts";
export { type NewEvent, PublishDroppedError } from "./errors.ts";
export {
  type Append,
  GrowingMessage,
  type PublisherOptions,
  type PublishOptions,
  SessionPublisher,
} from "./publisher.ts";
