import { firstString, members, type Notice, type WireEvent } from "./wire.ts";

/** A question that a run asks people. */
export interface Question {
  readonly id: string;
  readonly message: string;
  readonly choices: readonly string[];
  /** What was answered, and by whom, in words; empty while the question is open. */
  readonly answer: string;
}

/** The question of a `$input.requested`; none if it has no choices to show as buttons. */
export function asked({ data }: WireEvent): Question | undefined {
  const { choices } = members(data);
  const id = firstString(data, "id");
  if (id === undefined || !Array.isArray(choices)) return undefined;
  return { id, message: firstString(data, "message", "reason") ?? "", choices: choices.map(String), answer: "" };
}

/** The question after a `$input.resolved`, which may be of another question. */
export function answered(question: Question | undefined, { data }: WireEvent): Question | undefined {
  if (question === undefined || firstString(data, "request") !== question.id) return question;
  const status = firstString(data, "status") ?? "resolved";
  const what = status === "resolved" ? `“${firstString(data, "payload") ?? ""}”` : status;
  const by = firstString(data, "by");
  const device = firstString(data, "device");
  return { ...question, answer: `${what}${by ? ` by ${by}` : ""}${device ? ` from the ${device}` : ""}` };
}

/** A question that still waits for an answer. */
export function isOpen(question: Question | undefined): question is Question & { readonly answer: "" } {
  return question !== undefined && question.answer === "";
}

/** The notifications that a device's lock screen shows: those that came since it fell asleep, newest first. */
export function onLockScreen(notices: readonly Notice[], device: string, asleepSince: number | undefined): Notice[] {
  if (asleepSince === undefined) return [];
  return notices.filter((one) => one.device === device && one.time * 1000 >= asleepSince).toReversed();
}
