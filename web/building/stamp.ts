import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** What the page is made of beside its own source: the client, which is built into it, and what the pages share. */
const OTHERS = ["../client/src", "../shared"];

/** The files the page is made of, as sorted posix paths relative to `root`. */
export function sourceFiles(root: string): string[] {
  const inside = ["src", ...OTHERS].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => folder + join(entry.parentPath, entry.name).slice(join(root, folder).length))
      .map((path) => path.replaceAll("\\", "/")),
  );
  return ["index.html", ...inside].sort(byCodePoint);
}

/** One hash over path and content of every source file, so that a test can tell whether the built page is stale. */
export function sourceStamp(root: string): string {
  const hash = createHash("sha256");
  for (const path of sourceFiles(root)) {
    hash
      .update(path, "utf8")
      .update("\0")
      .update(readFileSync(join(root, path)))
      .update("\0");
  }
  return hash.digest("hex");
}

/** UTF-8 byte order, which is the order of code points: what every other language sorts paths by. */
function byCodePoint(left: string, right: string): number {
  return Buffer.compare(Buffer.from(left), Buffer.from(right));
}
