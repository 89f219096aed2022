/** A real subscription, where the browser has a push service. The phone of the page has the demo's own endpoint instead. */

export type Outcome = "subscribed" | "blocked" | "unavailable";

export const canSubscribe = (): boolean => "serviceWorker" in navigator && "PushManager" in window;

export async function subscribe(gateway: string): Promise<Outcome> {
  if ((await Notification.requestPermission()) !== "granted") return "blocked";
  try {
    const { public_key: key } = await (await fetch(`${gateway}/v1/push`)).json();
    await navigator.serviceWorker.register("/worker.js");
    const { pushManager } = await navigator.serviceWorker.ready; // it takes a worker that is active
    // Each demo has a key of its own, which an earlier subscription at this address does not belong to.
    await (await pushManager.getSubscription())?.unsubscribe();
    const subscription = await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
    const answer = await fetch(`${gateway}/v1/push/subscriptions/browser`, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(subscription),
    });
    return answer.ok ? "subscribed" : "unavailable";
  } catch {
    return "unavailable";
  }
}
