import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { sourceFiles, sourceStamp } from "../../building/stamp.ts";

const root = join(import.meta.dirname, "..");
const page = readFileSync(join(root, "../../src/wakeline/cli/demo/page.html"), "utf8");

it("covers the page and all of its source, sorted", () => {
  const files = sourceFiles(root);
  expect(files).toContain("index.html");
  expect(files).toContain("src/view/card.ts");
  expect(files).toContain("../client/src/reader.ts");
  expect(files).toEqual([...files].sort());
});

it("is in the built page; if this fails, run the build", () => {
  expect(page).toContain(`<meta name="wakeline-source" content="${sourceStamp(root)}">`);
});

it("needs nothing from anywhere else", () => {
  expect(page.match(/<(?:script|link|img)[^>]*(?:src|href)="(?!data:)[^"]*"/g)).toBeNull();
  expect(page).not.toMatch(/@import|url\((?!["']?data:)/);
});
