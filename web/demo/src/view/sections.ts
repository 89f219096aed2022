import type { Other, Stage, Step, Story } from "../story.ts";
import { eachChild, element, setAttribute, setText } from "./dom.ts";

/** The forms that a card's events can take. Each is empty, and hidden, until the session has something of its kind. */
export class Sections {
  readonly nodes: readonly HTMLElement[];
  #steps = element("ol", { class: "steps" });
  #stepDetail = element("p", { class: "step-detail" });
  #answer = element("p", { class: "answer" });
  #words = document.createTextNode("");
  #stages = element("ul", { class: "stages" });
  #others = element("ul", { class: "others" });

  constructor() {
    this.#answer.append(this.#words);
    this.nodes = [this.#steps, this.#stepDetail, this.#answer, this.#stages, this.#others];
    for (const node of this.nodes) node.hidden = true;
  }

  update(story: Story, running: boolean, asks: boolean): void {
    this.#steps.hidden = story.steps.length === 0;
    this.#stepDetail.hidden = story.steps.length === 0 || asks; // the question takes its place
    this.#answer.hidden = story.text === "";
    this.#stages.hidden = story.stages.length === 0;
    this.#others.hidden = story.others.length === 0;
    eachChild(this.#steps, story.steps, newStep, (child, step, index) =>
      drawStep(child, step, running && index === story.steps.length - 1),
    );
    setText(this.#stepDetail, story.steps.at(-1)?.detail ?? "");
    eachChild(this.#stages, story.stages, newStage, drawStage);
    eachChild(this.#others, story.others, newOther, drawOther);
    write(this.#words, story.text);
    this.#answer.classList.toggle("writing", running);
  }
}

/** Adds what is new instead of setting the whole text: a long answer would be laid out anew for every word. */
function write(words: Text, text: string): void {
  if (text === words.data) return;
  if (text.startsWith(words.data)) words.appendData(text.slice(words.length));
  else words.data = text;
}

function newStep(): Element {
  return element("li", { class: "step" }, element("span", { class: "label" }));
}

function drawStep(node: Element, step: Step, current: boolean): void {
  const [label] = node.children;
  if (label) setText(label, step.label.replaceAll("_", " "));
  node.classList.toggle("current", current);
  if (current) setAttribute(node, "aria-current", "step");
  else node.removeAttribute("aria-current");
}

function newStage(): Element {
  return element(
    "li",
    { class: "stage" },
    element("span", { class: "label" }),
    element(
      "span",
      { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" },
      element("span"),
    ),
    element("span", { class: "percent" }),
  );
}

function drawStage(node: Element, stage: Stage): void {
  const [label, bar, percent] = node.children;
  const value = String(Math.floor(stage.percent));
  if (label) setText(label, stage.name.replaceAll("_", " "));
  if (percent) setText(percent, `${value}%`);
  if (bar) {
    setAttribute(bar, "aria-label", stage.name);
    setAttribute(bar, "aria-valuenow", value);
    (bar.firstElementChild as HTMLElement).style.transform = `scaleX(${stage.percent / 100})`;
  }
  node.classList.toggle("full", stage.percent >= 100);
}

function newOther(): Element {
  return element("li", { class: "other" }, element("span", { class: "label" }), element("span", { class: "detail" }));
}

function drawOther(node: Element, other: Other): void {
  const [label, detail] = node.children;
  if (label) setText(label, other.topic);
  if (detail) setText(detail, other.summary);
}
