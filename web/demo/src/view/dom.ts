/** The little that is needed to write DOM by hand: make an element, and write to it only what changed. */

type Attributes = Readonly<Record<string, string>>;

export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function setText(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node: Element, name: string, value: string): void {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Makes `parent` have one child for each item, keeping those it has. */
export function eachChild<Item>(
  parent: Element,
  items: readonly Item[],
  make: () => Element,
  update: (child: Element, item: Item, index: number) => void,
): void {
  while (parent.children.length > items.length) parent.lastElementChild?.remove();
  items.forEach((item, index) => {
    const child = parent.children[index] ?? parent.appendChild(make());
    update(child, item, index);
  });
}

const followed = new WeakMap<Element, number>();

/**
 * Runs `change`, and keeps a scrolled box at its end unless the reader scrolled up. A box that is still where it was last
 * put has been left alone, though it may have been laid out anew in the meantime.
 */
export function stayAtEnd(box: Element, change: () => void): void {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 12;
  const leftAlone = box.scrollTop === followed.get(box);
  change();
  if (!atEnd && !leftAlone) return;
  box.scrollTop = box.scrollHeight;
  followed.set(box, box.scrollTop);
}

const SVG = "http://www.w3.org/2000/svg";

/** A line drawing on a 24 by 24 grid, for the eye only. */
export function icon(path: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) {
    svg.setAttribute(name, value);
  }
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}
