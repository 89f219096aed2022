import { defineConfig } from "vitest/config";

const minify = { mangle: { toplevel: true }, compress: true, codegen: true } as const;

/** By their mode: files of their own, which hold all that they need. */
const APART: Readonly<Record<string, string>> = { worker: "src/worker.ts", publisher: "src/publisher/index.ts" };

export default defineConfig(({ mode }) => ({
  build: {
    target: "es2022",
    emptyOutDir: !APART[mode],
    lib: { entry: APART[mode] ? { [mode]: APART[mode] } : { index: "src/index.ts" }, formats: ["es"] },
    rolldownOptions: {
      external: [/^node:/],
      output: { minify, chunkFileNames: "[name].js", ...(APART[mode] && { codeSplitting: false }) },
    },
  },
  test: {
    include: ["tests/**/*.test.ts"],
    environment: "node",
    globalSetup: "../testing/setup.ts",
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
}));
