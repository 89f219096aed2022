/** Colours of topics: the same for a topic on every page, from those of the style sheet. */

const HUES = 8;

/** The number of a topic's colour; Wakeline's own topics have none. */
export function hueOf(topic: string): number | undefined {
  if (topic.startsWith("$")) return undefined;
  let hash = 7;
  for (const letter of topic) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) >>> 0;
  return hash % HUES;
}

export function classOf(topic: string): string {
  const hue = hueOf(topic);
  return hue === undefined ? "topic own" : `topic hue-${hue}`;
}

export interface Palette {
  readonly hues: readonly string[];
  readonly of: (name: string) => string;
}

/** The style sheet's colours as they are now, light or dark: a canvas cannot resolve them. */
export function paletteOf(element: HTMLElement): Palette {
  const probe = document.createElement("span");
  element.append(probe);
  const resolved = (name: string): string => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const names = [
    "ink",
    "soft",
    "line",
    "accent",
    "accent-wash",
    "good",
    "bad",
    "warm",
    "warm-wash",
    "surface",
    "sunken",
  ];
  const found = new Map(names.map((name) => [name, resolved(name)]));
  const hues = Array.from({ length: HUES }, (_, at) => resolved(`hue-${at}`));
  probe.remove();
  return { hues, of: (name) => found.get(name) ?? "gray" };
}
