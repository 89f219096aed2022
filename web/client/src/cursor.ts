/** Positions: a session's epoch and the next offset in it. */

export interface Cursor {
  readonly epoch: string;
  readonly offset: number;
}

/** The cursor that a text represents; `undefined` for any other text. */
export function parseCursor(text: string): Cursor | undefined {
  const found = /^([a-z0-9]+)-(\d+)$/.exec(text);
  return found ? { epoch: found[1] as string, offset: Number(found[2]) } : undefined;
}

export function formatCursor({ epoch, offset }: Cursor): string {
  return `${epoch}-${offset}`;
}
