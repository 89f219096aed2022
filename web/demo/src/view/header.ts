import { type Action, act } from "../demo.ts";
import { counterParts, plural } from "../format.ts";
import type { DemoState } from "../wire.ts";
import { element, icon, setAttribute, setText } from "./dom.ts";
import { WAKE } from "./icons.ts";

const ACTIONS: readonly { action: Action; label: string; key: string }[] = [
  { action: "kill", label: "Kill the gateway", key: "k" },
  { action: "offline", label: "Phone offline 10 s", key: "o" },
  { action: "terminate", label: "Terminate a workflow", key: "t" },
];
/** For this one each question has a button of its own. */
const APPROVE_KEY = "a";

export class Header {
  readonly root: HTMLElement;
  #sent = element("span", {}, "sent 0");
  #missing = element("span", {}, "missing 0");
  #duplicate = element("span", {}, "duplicate 0");
  #counter: HTMLElement;
  #gateway = element("p", { class: "gateway", "data-gateway": "unknown" }, "Gateway");
  #buttons: ReadonlyMap<string, HTMLElement>;

  constructor(say: (message: string) => void) {
    const counted = [this.#sent, dot(), this.#missing, dot(), this.#duplicate];
    this.#counter = element("p", { class: "counter", "data-counter": "" }, ...counted);
    this.#buttons = new Map(ACTIONS.map((it) => [it.key, button(it, say)]));
    this.root = element(
      "header",
      { class: "top" },
      element("div", { class: "brand" }, icon(WAKE), element("h1", {}, "Wakeline")),
      element("p", { class: "tagline" }, "Publish once: every device gets all of it, through any disconnect."),
      this.#gateway,
      this.#counter,
      element("div", { class: "actions", role: "group", "aria-label": "Things to break" }, ...this.#buttons.values()),
    );
  }

  /** Does what a key stands for, here as in the terminal; whether it stands for something. */
  press(key: string): boolean {
    if (key === APPROVE_KEY) void act("approve");
    else this.#buttons.get(key)?.click();
    return key === APPROVE_KEY || this.#buttons.has(key);
  }

  update(state: DemoState | undefined, reachable: boolean, total: number): void {
    if (!state) {
      setText(this.#gateway, "Connecting");
      return;
    }
    const { counter, gateway } = state;
    const [sent = "", missing = "", duplicate = ""] = counterParts({ ...counter, sent: total });
    setText(this.#sent, sent);
    setText(this.#missing, missing);
    setText(this.#duplicate, duplicate);
    this.#missing.className = counter.missing === 0 ? "zero" : "wrong";
    this.#duplicate.className = counter.duplicate === 0 ? "zero" : "wrong";
    setAttribute(this.#gateway, "data-gateway", reachable ? (gateway.up ? "up" : "down") : "unknown");
    const light = gateway.up ? "Gateway up" : "Gateway down";
    setText(this.#gateway, reachable ? `${light} · ${plural(gateway.restarts, "restart")}` : "The demo has ended");
  }
}

function dot(): HTMLElement {
  return element("span", { class: "dot" }, " · ");
}

function button({ action, label, key }: (typeof ACTIONS)[number], say: (message: string) => void): HTMLElement {
  const node = element(
    "button",
    { type: "button", class: "action", "data-action": action, title: `Key ${key}, here and in the terminal` },
    element("span", {}, label),
    " ",
    element("kbd", {}, key),
  );
  node.addEventListener("click", async () => {
    // aria-disabled keeps the focus where it is, unlike disabled.
    if (node.getAttribute("aria-disabled") === "true") return;
    node.setAttribute("aria-disabled", "true");
    if (!(await act(action))) say(`“${label}” did not reach the demo.`);
    node.removeAttribute("aria-disabled");
  });
  return node;
}
