/**
 * Sessions of a Wakeline gateway, from a page or a program.
 *
 *     const session = connect({ url, token: () => fetchToken() }).session("order-1");
 *     for await (const event of session.events({ until: "settled" })) render(event);
 *
 * The way of an event through these files: `reader.ts` pages through the log until it is caught up, and then reads live
 * from a source (`live.ts`) that `hub.ts` fills over a WebSocket (`socket.ts`), a stream or long-polls (`stream.ts`).
 * `events.ts` and `view.ts` are what a page sees of it; `folded.ts` holds a view's state by the rules of `fold.ts`.
 */

export type { AnswerOptions, InputRequest, Outcome, SendOptions } from "./actions.ts";
export { type Client, type ConnectOptions, connect } from "./client.ts";
export { type Refusal, WakelineError } from "./errors.ts";
export type { Events } from "./events.ts";
export type { Range } from "./fold.ts";
export type { Change, Message, RunView } from "./folded.ts";
export type { Call } from "./http.ts";
export type { Transport } from "./hub.ts";
export type { CursorStorage } from "./keeper.ts";
export type { State } from "./reader.ts";
export type { EventsOptions, PageOptions, Reading, Session } from "./session.ts";
export type { Timing } from "./timing.ts";
export type { Token } from "./tokens.ts";
export type { OnChange, View } from "./view.ts";
export type {
  Device,
  Op,
  Run,
  SessionEvent,
  SessionInfo,
  WireEvent,
  WirePage as Page,
} from "./wire.ts";
