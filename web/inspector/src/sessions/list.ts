/** The sessions that were read so far, the newest first, in pages that the gateway finds; those that are shown stay fresh. */

import { signal } from "@preact/signals";
import type { SessionInfo, WakelineError } from "@wakeline/client";
import { type SessionPage, stateOf } from "../api.ts";

export const PAGE = 100;
/** With a status that few sessions have, so many pages are read before the reader is asked. */
const PAGES_AT_ONCE = 20;
const RATES = 24;

export interface Row extends SessionInfo {
  readonly state: string;
  /** Events in each of the last intervals between two answers. */
  readonly rates: readonly number[];
}

interface PageOfRows {
  /** What the page came after; empty for the first one. */
  readonly begin: string;
  rows: Row[];
}

type Ask = (query: Record<string, string | number>) => Promise<SessionPage>;

export class SessionList {
  readonly rows = signal<readonly Row[]>([]);
  readonly error = signal<WakelineError | undefined>(undefined);
  readonly reading = signal(false);
  /** Whether there are more sessions at the gateway. */
  readonly more = signal(true);
  readonly #ask: Ask;
  readonly #contains: string;
  readonly #state: string;
  #pages: PageOfRows[] = [];
  #seen = new Set<string>();
  #next = "";

  constructor(ask: Ask, contains: string, state: string) {
    this.#ask = ask;
    this.#contains = contains;
    this.#state = state;
  }

  /** Read on until there are more rows to show, or so many pages had none. */
  async load(): Promise<void> {
    if (this.reading.value || !this.more.value) return;
    this.reading.value = true;
    try {
      const before = this.rows.value.length;
      for (let pages = 0; pages < PAGES_AT_ONCE && this.more.value; pages += 1) {
        const page = await this.#ask(this.#query(this.#next));
        const rows = page.sessions.map((one) => rowOf(one));
        this.#pages.push({ begin: this.#next, rows });
        this.#next = page.after ?? "";
        this.more.value = page.after !== null;
        this.#add(rows);
        if (this.rows.value.length >= before + PAGE / 2) break;
      }
      this.error.value = undefined;
    } catch (thrown) {
      this.error.value = thrown as WakelineError;
    } finally {
      this.reading.value = false;
    }
  }

  /** Read the pages of the rows from `first` to `last` again, and the first page for what is new. */
  async refresh(first: number, last: number): Promise<void> {
    // The first request failed.
    if (this.#pages.length === 0) return this.load();
    const shown = new Set(this.rows.value.slice(first, last).map(({ session }) => session));
    const pages = this.#pages.filter((page, at) => at === 0 || page.rows.some(({ session }) => shown.has(session)));
    try {
      for (const page of pages) {
        const { sessions, after } = await this.#ask(this.#query(page.begin));
        this.#merge(page, sessions, after);
      }
      this.error.value = undefined;
    } catch (thrown) {
      this.error.value = thrown as WakelineError;
    }
    this.#show();
  }

  #query(after: string): Record<string, string | number> {
    return {
      order: "newest",
      limit: PAGE,
      ...(after && { after }),
      ...(this.#contains && { contains: this.#contains }),
      ...(this.#state && { status: this.#state }),
    };
  }

  /** Replace a page's rows by what they are now. What is new pushes rows of the first page out: they stay in it. */
  #merge(page: PageOfRows, now: readonly SessionInfo[], after: string | null): void {
    const before = new Map(page.rows.map((row) => [row.session, row]));
    const rows = now.map((one) => {
      const row = rowOf(one, before.get(one.session));
      before.delete(one.session);
      return row;
    });
    const pushed = page.rows.filter((row) => before.has(row.session) && after !== null && comesAfter(row, after));
    page.rows = [...rows, ...pushed];
  }

  #show(): void {
    this.#seen = new Set();
    this.#add(
      this.#pages.flatMap(({ rows }) => rows),
      [],
    );
  }

  /** Add rows that come after all others; a session is shown once. */
  #add(rows: readonly Row[], before = this.rows.peek()): void {
    const fresh = rows.filter(({ session }) => !this.#seen.has(session) && this.#seen.add(session));
    this.rows.value = [...before, ...fresh];
  }
}

/** Whether a row is older than the last session of an answer, which `after` names: when it was created, and its name. */
function comesAfter({ created, session }: SessionInfo, after: string): boolean {
  const at = after.indexOf(" ");
  const last = after.slice(0, at);
  return created < last || (created === last && session < after.slice(at + 1));
}

/** A row; the rates go on from the row before. */
export function rowOf(now: SessionInfo, before?: Row): Row {
  const rates = before?.epoch === now.epoch ? [...before.rates, now.next_offset - before.next_offset] : [];
  return { ...now, state: stateOf(now), rates: rates.slice(-RATES) };
}
