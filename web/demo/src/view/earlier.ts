import type { Device } from "../device.ts";
import { emptyView, type SessionView } from "../fold.ts";
import { number, plural, statusText } from "../format.ts";
import type { SessionInfo } from "../wire.ts";
import { eachChild, element, setAttribute, setText } from "./dom.ts";

/** The sessions that newer ones have taken the place of: one line each, folded away. */
export class Earlier {
  readonly root: HTMLElement;
  #summary = element("span", { class: "sum" });
  #drawn: { session: string; view: SessionView }[] = [];
  #list = element("ul", { tabindex: "0", "aria-label": "Earlier sessions" });

  constructor() {
    this.root = element(
      "details",
      { class: "earlier" },
      element("summary", {}, "Earlier sessions ", this.#summary),
      this.#list,
    );
  }

  /** @param sessions Newest first. */
  update(sessions: readonly SessionInfo[], device: Device): void {
    const views = sessions.map((info) => device.feeds.get(info.session)?.view ?? emptyView);
    const events = views.reduce((sum, view) => sum + view.published, 0);
    const ended = views.filter((view) => view.status !== "running").length;
    const parts = [`${number(ended)} ended`, plural(events, "event")];
    if (ended < views.length) parts.splice(1, 0, `${number(views.length - ended)} to be read to the end`);
    setText(this.#summary, sessions.length > 0 ? parts.join(" · ") : "none yet");
    eachChild(this.#list, sessions, newRow, (row, { session }, index) => {
      const view = views[index] ?? emptyView;
      const drawn = this.#drawn[index];
      // There can be hundreds of rows, and few of them ever change.
      if (drawn?.session === session && drawn.view === view) return;
      this.#drawn[index] = { session, view };
      drawRow(row, session, view);
    });
    this.#drawn.length = sessions.length;
  }
}

function drawRow(row: Element, session: string, { published, status }: SessionView): void {
  const [name, count, how] = row.children;
  setAttribute(row, "data-session", session);
  setAttribute(row, "data-count", String(published));
  setAttribute(row, "data-status", status);
  if (name) setText(name, session);
  if (count) setText(count, plural(published, "event"));
  if (how) setText(how, statusText(status));
}

function newRow(): Element {
  return element(
    "li",
    {},
    element("span", { class: "name" }),
    element("span", { class: "count" }),
    element("span", { class: "status" }),
  );
}
