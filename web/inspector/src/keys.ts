/** Keys: each view says what its keys do while it is shown. */

import { useEffect, useRef } from "preact/hooks";

export type Keys = Readonly<Record<string, (event: KeyboardEvent) => void>>;

const stack: { current: Keys }[] = [];

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target as HTMLElement;
  const writes = target.matches("input, textarea, select, [contenteditable]");
  if (writes) {
    if (event.key === "Escape") {
      // A field for a search would be emptied.
      event.preventDefault();
      target.blur();
    }
    return;
  }
  // These keys work the control that has the focus.
  if ((event.key === " " || event.key === "Enter") && target.closest("button, a, summary, [role=slider]")) return;
  for (const { current } of stack.toReversed()) {
    const act = current[event.key];
    if (act) {
      event.preventDefault();
      act(event);
      return;
    }
  }
});

/** Have keys while a component is shown; the one that was shown last comes first. */
export function useKeys(keys: Keys): void {
  const held = useRef(keys);
  held.current = keys;
  useEffect(() => {
    stack.push(held);
    return () => {
      stack.splice(stack.indexOf(held), 1);
    };
  }, []);
}
