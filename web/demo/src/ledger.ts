/** The account a device keeps of one session: did every offset come, and once? */

export interface Ledger {
  /** Events received. */
  readonly count: number;
  /** The offset that must come next. */
  readonly next: number;
  /** Offsets skipped, and events that a `$gap` says can no longer be had. */
  readonly missing: number;
  /** Events whose offset had been passed already. */
  readonly duplicate: number;
}

export const emptyLedger: Ledger = { count: 0, next: 0, missing: 0, duplicate: 0 };

/**
 * Enters one more offset. One below `next` counts as a duplicate even if it had been skipped before: order is
 * promised too, so a late event is not a healed gap but a second fault.
 */
export function enter(ledger: Ledger, offset: number, lost = 0): Ledger {
  const count = ledger.count + 1;
  if (offset < ledger.next) return { ...ledger, count, duplicate: ledger.duplicate + 1 };
  return { ...ledger, count, next: offset + 1, missing: ledger.missing + (offset - ledger.next) + lost };
}
