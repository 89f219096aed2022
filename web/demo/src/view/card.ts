import { emptyView, type SessionView } from "../fold.ts";
import { number, plural, statusText } from "../format.ts";
import type { Ledger } from "../ledger.ts";
import { isOpen, type Question } from "../question.ts";
import type { SessionInfo } from "../wire.ts";
import { Ask } from "./ask.ts";
import { element, icon, setAttribute, setText, stayAtEnd } from "./dom.ts";
import { kindIcon } from "./icons.ts";
import { Sections } from "./sections.ts";

/** One session on one device, shown large. */
export class Card {
  readonly root: HTMLElement;
  readonly session: string;
  #sections = new Sections();
  #ask: Ask;
  #empty = element("p", { class: "empty" }, "Waiting for the first event");
  #body: HTMLElement;
  #status = element("span", { class: "status" });
  #count = element("span", {});
  #last = element("span", { class: "last" });
  #faults = element("span", {});
  #remark = element("span", { class: "remark" });
  #shown: SessionView | undefined;
  #resumes: boolean | undefined;

  constructor(info: SessionInfo, device: string, answer: (question: Question, choice: string) => Promise<unknown>) {
    this.session = info.session;
    this.#ask = new Ask(answer);
    this.#body = element(
      "div",
      { class: "body", tabindex: "0", role: "group", "aria-label": `What ${info.session} says on the ${device}` },
      this.#empty,
      ...this.#sections.nodes,
      this.#ask.root,
    );
    this.root = element(
      "article",
      {
        class: "card",
        "data-session": info.session,
        "data-kind": info.kind,
        "aria-label": `${info.title} ${info.session}`,
      },
      element(
        "header",
        {},
        icon(kindIcon(info.kind)),
        element("h3", {}, info.title),
        element("span", { class: "name", title: info.session }, info.session),
        this.#status,
      ),
      this.#body,
      element("footer", {}, element("span", { class: "count" }, this.#count, this.#last, this.#faults), this.#remark),
    );
  }

  /** @param resumes Whether the device is away, so that this session goes on later. */
  update(view: SessionView = emptyView, resumes = false): void {
    if (view === this.#shown && resumes === this.#resumes) return;
    this.#shown = view;
    this.#resumes = resumes;
    const { ledger, published, question, status, story } = view;
    const running = status === "running";
    setAttribute(this.root, "data-count", String(published));
    const asks = isOpen(question);
    setAttribute(this.root, "data-status", asks ? "waiting" : status);
    setText(this.#status, asks ? "waiting" : statusText(status));
    this.#empty.hidden = story.text !== "" || [story.steps, story.stages, story.others].some((list) => list.length > 0);
    if (!running) setText(this.#empty, "Ended without a word of its own");
    const focused = this.#ask.root.contains(document.activeElement);
    stayAtEnd(this.#body, () => {
      this.#sections.update(story, running, asks);
      this.#ask.update(question, resumes);
    });
    // The buttons are gone, and the keyboard goes on from here.
    if (focused && !asks) this.#body.focus({ preventScroll: true });
    setText(this.#count, plural(published, "event"));
    setText(this.#last, ledger.next > 0 ? `· last offset ${number(ledger.next - 1)}` : "");
    setText(this.#faults, faultsText(ledger));
    const resuming = resumes && !view.settled && ledger.next > 0;
    const remark = resuming ? `resumes from ${number(ledger.next)}` : remarkOf(view);
    setText(this.#remark, remark);
    setAttribute(this.#remark, "title", remark);
    this.root.classList.toggle("faulty", ledger.missing + ledger.duplicate > 0);
  }
}

function remarkOf({ doing, question, status, why }: SessionView): string {
  if (isOpen(question)) return "waits for an answer";
  return (status === "running" ? doing : why) || (question?.answer ?? "");
}

function faultsText({ missing, duplicate }: Ledger): string {
  const parts = [
    missing > 0 ? ` · missing ${number(missing)}` : "",
    duplicate > 0 ? ` · duplicate ${number(duplicate)}` : "",
  ];
  return parts.join("");
}
