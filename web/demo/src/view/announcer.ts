import type { Device } from "../device.ts";
import { isOpen } from "../question.ts";
import type { DemoState } from "../wire.ts";
import { element } from "./dom.ts";

/**
 * Tells people who hear the page what those who see it notice: that something went away, came back or went wrong.
 * Counters and words would talk without end, so they are not told.
 */
export class Announcer {
  readonly root = element("p", { class: "heard", role: "status", "aria-live": "polite" });
  #told = new Map<string, string>();

  say(message: string): void {
    this.root.textContent = message;
  }

  update(state: DemoState | undefined, devices: readonly Device[]): void {
    if (!state) return;
    const { counter, gateway } = state;
    const news = [
      this.#news("gateway", gateway.up ? "The gateway is up." : "The gateway is down."),
      ...devices.map((device) =>
        this.#news(device.name, `The ${device.name} is ${device.online ? "online" : "offline"}.`),
      ),
      ...devices.map((device) => this.#news(`${device.name} notified`, noticeOf(device))),
      this.#news("question", questionOf(devices)),
      this.#news(
        "counter",
        counter.missing + counter.duplicate > 0 ? "Events are missing or duplicate." : "All is accounted for.",
      ),
    ].filter((message) => message !== "");
    if (news.length > 0) this.say(news.join(" "));
  }

  /** The message if it is another than last time; the first time is how things are, not news. */
  #news(about: string, message: string): string {
    const before = this.#told.get(about);
    this.#told.set(about, message);
    return before === undefined || before === message ? "" : message;
  }
}

function noticeOf(device: Device): string {
  const newest = device.notices[0];
  return newest ? `The ${device.name}, asleep, is notified: ${newest.text}` : "";
}

/** The newest question that some device shows, or how it was answered. */
function questionOf(devices: readonly Device[]): string {
  const views = devices.flatMap((device) => [...device.feeds.values()]);
  const open = views.find(({ view }) => isOpen(view.question));
  if (open?.view.question) return `${open.session} asks: ${open.view.question.message}`;
  const last = views.findLast(({ view }) => view.question);
  return last?.view.question ? `${last.session}: ${last.view.question.answer}.` : "";
}
