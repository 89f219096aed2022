import "../../shared/page.css";
import "./style/base.css";
import "./style/layout.css";
import "./style/panel.css";
import "./style/card.css";
import "./style/question.css";
import "./style/sections.css";
import { Comparison } from "./compare.ts";
import { watchState } from "./demo.ts";
import { Device } from "./device.ts";
import { Announcer } from "./view/announcer.ts";
import { element } from "./view/dom.ts";
import { Foot } from "./view/foot.ts";
import { Header } from "./view/header.ts";
import { Panel } from "./view/panel.ts";
import type { DemoState } from "./wire.ts";

declare global {
  interface Window {
    /** What the devices received, byte for byte, for whoever wants to compare. */
    wakeline: { devices(): string[]; events(device: string, session: string): string[] };
  }
}

let state: DemoState | undefined;
let reachable = false;
let scheduled = false;

const devices = [new Device("laptop", "127.0.0.1", draw), new Device("phone", "localhost", draw)];
const announcer = new Announcer();
const say = (message: string) => announcer.say(message);
const header = new Header(say);
const foot = new Foot(say);
const comparison = new Comparison();
const panels = [new Panel(devices[0] as Device, "Laptop", say), new Panel(devices[1] as Device, "Phone", say)];

document.body.append(
  header.root,
  element("main", { class: "devices" }, ...panels.map((panel) => panel.root)),
  foot.root,
  announcer.root,
);

watchState(
  (told) => {
    // The sessions of the run before are gone, and its devices would ask for them forever.
    if (state && state.run !== told.run) location.reload();
    state = told;
    for (const device of devices) device.update(told);
    draw();
  },
  (reached) => {
    reachable = reached;
    draw();
  },
);

// A key held down acts once; with Control or another modifier it is the browser's.
document.addEventListener("keydown", (event) => {
  if (!event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey && header.press(event.key.toLowerCase()))
    event.preventDefault();
});

// The seconds in the notes go on without any event.
setInterval(draw, 500);
draw();

window.wakeline = {
  devices: () => devices.map((device) => device.name),
  events: (device, session) => [...(devices.find((it) => it.name === device)?.feeds.get(session)?.raw ?? [])],
};

/** Draws soon, once for however many events came. A hidden page gets no animation frames, so a timer stands in. */
function draw(): void {
  if (scheduled) return;
  scheduled = true;
  if (document.hidden) setTimeout(drawNow, 250);
  else requestAnimationFrame(drawNow);
}

function drawNow(): void {
  scheduled = false;
  const now = Date.now();
  // What arrived was sent, though the demo counts it a little later. One number, so that all counters agree.
  const sent = Math.max(state?.counter.sent ?? 0, ...devices.map((device) => device.received));
  header.update(state, reachable, sent);
  announcer.update(state, devices);
  comparison.update(devices);
  foot.update(state, comparison);
  for (const panel of panels) panel.update(sent, now);
}
