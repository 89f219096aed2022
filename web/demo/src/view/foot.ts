import type { Comparison } from "../compare.ts";
import { plural } from "../format.ts";
import { element, setText } from "./dom.ts";

export class Foot {
  readonly root: HTMLElement;
  #verdict = element("span", { class: "verdict", "data-verdict": "" });

  constructor() {
    const method = "Each device checks every offset it is given. The keys k, o, t and a work in the terminal.";
    this.root = element("footer", { class: "foot" }, this.#verdict, element("span", {}, method));
  }

  update({ same, different }: Comparison): void {
    setText(this.#verdict, verdict(same, different));
    this.#verdict.classList.toggle("wrong", different > 0);
  }
}

export function verdict(same: number, different: number): string {
  if (different > 0) return `${plural(different, "session")} not the same on both devices.`;
  if (same === 0) return "No session has been read to its end by both devices yet.";
  return `${plural(same, "session")} read to the end by both devices, byte for byte the same.`;
}
