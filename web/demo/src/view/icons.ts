/** Paths for `icon`. */

export const WAKE = "M2 9c4 0 4 3 8 3s4-3 8-3M6 15c4 0 4 3 8 3s4-3 8-3";
export const LAPTOP = "M5 5h14v10H5zM2 19h20";
export const PHONE = "M8 3h8a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1zM11 18h2";
export const BELL = "M6 17V11a6 6 0 0 1 12 0v6l2 2H4zM10 22h4";

const KINDS: Readonly<Record<string, string>> = {
  order: "M4 8l8-4 8 4v8l-8 4-8-4zM4 8l8 4 8-4M12 12v8",
  agent: "M4 5h16v11h-9l-4 4v-4H4zM8 9h8M8 12h5",
  pipeline: "M4 6h10M4 12h16M4 18h6",
};
const OTHER_KIND = "M4 12h4l2-6 4 12 2-6h4";

export function kindIcon(kind: string): string {
  return KINDS[kind] ?? OTHER_KIND;
}
