/**
 * React hooks for Wakeline's sessions.
 *
 *     <WakelineProvider client={client}> … const messages = useMessages("chat-1");
 *
 * `hooks.ts` has the hooks; `readings.ts` what they read, which components share by `store.ts`.
 */

export {
  type Enabled,
  type EventsOptions,
  type OpenRequest,
  type SessionName,
  useEvents,
  useMessages,
  usePresence,
  useRequests,
  useRun,
  useSession,
  type ViewOptions,
} from "./hooks.ts";
export { useClient, WakelineProvider } from "./provider.ts";
export type { ViewContent } from "./readings.ts";
