import type { Comparison } from "../compare.ts";
import { plural } from "../format.ts";
import { canSubscribe, type Outcome, subscribe } from "../push.ts";
import type { DemoState } from "../wire.ts";
import { element, setAttribute, setText } from "./dom.ts";

const SUBSCRIBED: Readonly<Record<Outcome, string>> = {
  subscribed: "This browser is notified, too",
  blocked: "Notifications are blocked here",
  unavailable: "This browser has no push service",
};

export class Foot {
  readonly root: HTMLElement;
  #verdict = element("span", { class: "verdict", "data-verdict": "" });
  #notify = element("button", { type: "button", class: "notify" }, "Notify this browser, too");
  #inspector = element("a", { class: "inspect", target: "_blank", rel: "noopener" }, "Inspect the gateway");
  #gateway = "";

  constructor(say: (message: string) => void) {
    const method = "Each device checks every offset. Keys: k, o, t, and a to approve.";
    this.#notify.hidden = true;
    this.#notify.addEventListener("click", async () => {
      if (this.#notify.getAttribute("aria-disabled") === "true") return;
      setAttribute(this.#notify, "aria-disabled", "true");
      const outcome = await subscribe(this.#gateway);
      setText(this.#notify, SUBSCRIBED[outcome]);
      say(`${SUBSCRIBED[outcome]}.`);
      setAttribute(this.#notify, "aria-disabled", String(outcome === "subscribed"));
    });
    this.root = element(
      "footer",
      { class: "foot" },
      this.#verdict,
      this.#notify,
      this.#inspector,
      element("span", {}, method),
    );
  }

  update(state: DemoState | undefined, { same, different }: Comparison): void {
    this.#gateway = state?.gateway.url ?? "";
    this.#inspector.hidden = !this.#gateway;
    setAttribute(this.#inspector, "href", `${this.#gateway}/`);
    this.#notify.hidden = !state || !canSubscribe();
    setText(this.#verdict, verdict(same, different));
    this.#verdict.classList.toggle("wrong", different > 0);
  }
}

export function verdict(same: number, different: number): string {
  if (different > 0) return `${plural(different, "session")} not the same on both devices.`;
  if (same === 0) return "No session has been read to its end by both devices yet.";
  return `${plural(same, "session")} read to the end by both devices, byte for byte the same.`;
}
