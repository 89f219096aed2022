import type { Notice } from "../wire.ts";
import { eachChild, element, icon, setAttribute, setText } from "./dom.ts";
import { BELL } from "./icons.ts";

const MOST_SHOWN = 2;

/** The lock screen of a device that is asleep: its notifications, over what it showed last. */
export class LockScreen {
  readonly root = element("div", { class: "lock" });
  #wake: () => void;

  constructor(wake: () => void) {
    this.#wake = wake;
  }

  /** @param held Whether the device cannot be woken for now. */
  update(notices: readonly Notice[], held: boolean): void {
    this.root.hidden = notices.length === 0;
    eachChild(
      this.root,
      notices.slice(0, MOST_SHOWN),
      () => this.#notice(),
      (node, notice) => draw(node, notice, held),
    );
  }

  #notice(): Element {
    const node = element(
      "button",
      { type: "button", class: "notice" },
      icon(BELL),
      element("span", { class: "lead" }, "Notified while asleep "),
      element("span", { class: "name" }),
      element("strong", {}),
      element("span", { class: "open" }),
    );
    node.addEventListener("click", () => this.#wake());
    return node;
  }
}

function draw(node: Element, { session, text }: Notice, held: boolean): void {
  const [, , name, strong, open] = node.children;
  setAttribute(node, "data-notified", session);
  setAttribute(node, "aria-disabled", String(held));
  if (name) setText(name, session);
  if (strong) setText(strong, text);
  if (open) setText(open, held ? "Asleep for 10 s" : "Wake up to answer");
}
