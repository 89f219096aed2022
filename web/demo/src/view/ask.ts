import { isOpen, type Question } from "../question.ts";
import { element, setAttribute, setText } from "./dom.ts";

/** An open question with its choices as buttons; hidden while there is none. */
export class Ask {
  readonly root = element("div", { class: "ask", role: "group" });
  #answer: (question: Question, choice: string) => Promise<unknown>;
  #message = element("p", { class: "question" });
  #choices = element("div", { class: "choices" });
  #question: Question | undefined;
  #sending = false;
  #away = false;

  constructor(answer: (question: Question, choice: string) => Promise<unknown>) {
    this.#answer = answer;
    this.root.append(this.#message, this.#choices);
    this.root.hidden = true;
  }

  /** @param away Whether the device is offline, and cannot answer. */
  update(question: Question | undefined, away: boolean): void {
    this.root.hidden = !isOpen(question);
    this.#away = away;
    if (isOpen(question) && question.id !== this.#question?.id) {
      setText(this.#message, question.message);
      setAttribute(this.root, "aria-label", question.message);
      this.#choices.replaceChildren(...question.choices.map((choice) => this.#button(question, choice)));
    }
    this.#question = question;
    this.#enable();
  }

  #button(question: Question, choice: string): HTMLElement {
    const label = choice.charAt(0).toUpperCase() + choice.slice(1);
    const node = element("button", { type: "button", class: "choice", "data-choice": choice }, label);
    node.addEventListener("click", async () => {
      if (this.#sending || this.#away) return;
      this.#sending = true;
      this.#enable();
      await this.#answer(question, choice);
      this.#sending = false;
      this.#enable();
    });
    return node;
  }

  #enable(): void {
    // aria-disabled keeps the focus where it is, unlike disabled.
    for (const node of this.#choices.children) setAttribute(node, "aria-disabled", String(this.#sending || this.#away));
  }
}
