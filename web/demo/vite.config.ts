import { join } from "node:path";
import { defineConfig } from "vitest/config";
import { singleFile } from "./build/single-file.ts";
import { sourceStamp } from "./build/stamp.ts";

const root = import.meta.dirname;
const page = join(root, "../../src/wakeline/cli/demo/page.html");

export default defineConfig({
  base: "./",
  build: { target: "es2022", modulePreload: false, cssCodeSplit: false, assetsInlineLimit: 1_000_000 },
  plugins: [singleFile(page, () => sourceStamp(root))],
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
