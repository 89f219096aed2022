import { prominent } from "../choose.ts";
import type { Device } from "../device.ts";
import { number, plural, seconds } from "../format.ts";
import type { Question } from "../question.ts";
import type { SessionInfo } from "../wire.ts";
import { Card } from "./card.ts";
import { element, icon, setAttribute, setText } from "./dom.ts";
import { Earlier } from "./earlier.ts";
import { kindIcon, LAPTOP, PHONE } from "./icons.ts";
import { LockScreen } from "./lock.ts";

/** The kinds that have a place before their first session, so that nothing moves when it comes. */
const KINDS = ["order", "agent", "pipeline"];
const RETURN_SHOWN_FOR = 6000;

/** One device: its switch, its account, and its sessions. */
export class Panel {
  readonly root: HTMLElement;
  #device: Device;
  #say: (message: string) => void;
  #switch: HTMLElement;
  #switchText = element("span", { class: "word" }, "Online");
  #totals = { received: part(), missing: part(), duplicate: part(), behind: part() };
  #note = element("p", { class: "note" });
  #slots = element("div", { class: "slots" });
  #lock: LockScreen;
  #cards = new Map<string, Card>();
  #earlier = new Earlier();

  constructor(device: Device, title: string, say: (message: string) => void) {
    this.#device = device;
    this.#say = say;
    this.#lock = new LockScreen(() => this.#wake());
    this.#switch = element(
      "button",
      { type: "button", role: "switch", class: "switch", "data-toggle": device.name, "aria-label": `${title} online` },
      this.#switchText,
      element("span", { class: "track" }),
    );
    this.#switch.addEventListener("click", () => device.toggle());
    const { received, missing, duplicate, behind } = this.#totals;
    for (const kind of KINDS) this.#slot(kind);
    this.root = element(
      "section",
      { class: "panel", "data-device": device.name, "aria-label": title },
      element(
        "header",
        { class: "panel-head" },
        icon(device.name === "phone" ? PHONE : LAPTOP),
        element("h2", {}, title),
        this.#switch,
        element("p", { class: "totals", "data-totals": "" }, received, dot(), missing, dot(), duplicate, dot(), behind),
        this.#note,
      ),
      element("div", { class: "screen" }, this.#slots, this.#lock.root),
      this.#earlier.root,
    );
  }

  /** @param sent How many events were published so far, in all sessions. */
  update(sent: number, now: number): void {
    const device = this.#device;
    setAttribute(this.root, "data-presence", device.presence);
    setAttribute(this.#switch, "aria-checked", String(device.online));
    setAttribute(this.#switch, "aria-disabled", String(device.heldOffline));
    this.#lock.update(device.notices, device.heldOffline);
    setText(this.#switchText, device.online ? "Online" : "Offline");
    this.#updateTotals(sent);
    const large = prominent(device.sessions);
    for (const [kind, info] of large) this.#updateSlot(kind, info);
    const shown = new Set([...large.values()].map((info) => info.session));
    this.#earlier.update(device.sessions.filter((info) => !shown.has(info.session)).toReversed(), device);
    const { back } = device;
    this.root.classList.toggle("returned", device.presence === "live" && !!back && now - back.at < RETURN_SHOWN_FOR);
    setText(this.#note, this.#noteText(now, [...shown]));
  }

  #updateTotals(sent: number): void {
    let missing = 0;
    let duplicate = 0;
    for (const { view } of this.#device.feeds.values()) {
      missing += view.ledger.missing;
      duplicate += view.ledger.duplicate;
    }
    setText(this.#totals.received, `received ${number(this.#device.received)}`);
    setText(this.#totals.missing, `missing ${number(missing)}`);
    setText(this.#totals.duplicate, `duplicate ${number(duplicate)}`);
    setText(this.#totals.behind, `behind ${number(sent - this.#device.received)}`);
    this.#totals.missing.classList.toggle("wrong", missing !== 0);
    this.#totals.duplicate.classList.toggle("wrong", duplicate !== 0);
  }

  #updateSlot(kind: string, info: SessionInfo): void {
    const slot = this.#slot(kind);
    let card = this.#cards.get(kind);
    if (card?.session !== info.session) {
      card = new Card(info, this.#device.name, (question, choice) => this.#answer(info.session, question, choice));
      this.#cards.set(kind, card);
      slot.replaceChildren(card.root);
    }
    card.update(this.#device.feeds.get(info.session)?.view, this.#device.presence !== "live");
  }

  async #answer(session: string, question: Question, choice: string): Promise<void> {
    if (!(await this.#device.answer(session, question, choice))) this.#say("The answer did not reach the gateway.");
  }

  #wake(): void {
    if (this.#device.heldOffline) return;
    this.#switch.focus(); // the notification, which had the focus, goes away
    this.#device.toggle();
  }

  #slot(kind: string): Element {
    for (const slot of this.#slots.children) if (slot.getAttribute("data-slot") === kind) return slot;
    const waiting = element("p", { class: "card vacant" }, icon(kindIcon(kind)), `No ${kind} yet`);
    return this.#slots.appendChild(element("div", { "data-slot": kind }, waiting));
  }

  #noteText(now: number, shown: readonly string[]): string {
    const { absence, back, presence } = this.#device;
    if (absence) {
      const since = presence === "offline" ? `offline since ${seconds(now - absence.since)}` : "connection lost";
      return `${since} — reconnects from offset ${number(this.#furthest(shown))}`;
    }
    if (back && now - back.at < RETURN_SHOWN_FOR) {
      return `back after ${seconds(back.away + 500)} — ${plural(back.filled, "event")} filled in`;
    }
    return "live";
  }

  /** Of the unfinished sessions shown large, the offset of that with the most events; its card says the same. */
  #furthest(shown: readonly string[]): number {
    const feeds = shown.map((session) => this.#device.feeds.get(session)).filter((feed) => feed && !feed.view.settled);
    return Math.max(0, ...feeds.map((feed) => feed?.view.ledger.next ?? 0));
  }
}

function dot(): HTMLElement {
  return element("span", { class: "dot" }, " · ");
}

function part(): HTMLElement {
  return element("span");
}
