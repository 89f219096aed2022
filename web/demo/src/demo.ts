import type { DemoState } from "./wire.ts";

/** The demo process behind the page: its state as it changes, and the things it can be asked to do. */

export type Action = "kill" | "offline" | "terminate" | "approve";

const AGAIN_AFTER = 1000;

export function watchState(changed: (state: DemoState) => void, reached: (reachable: boolean) => void): void {
  const source = new EventSource("/demo/state");
  source.onopen = () => reached(true);
  source.onmessage = (event: MessageEvent<string>) => changed(JSON.parse(event.data) as DemoState);
  source.onerror = () => {
    reached(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => watchState(changed, reached), AGAIN_AFTER);
  };
}

export async function act(action: Action): Promise<boolean> {
  try {
    return (await fetch(`/demo/actions/${action}`, { method: "POST" })).ok;
  } catch {
    return false;
  }
}
