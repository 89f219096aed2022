import { defineConfig } from "vitest/config";

export default defineConfig({
  build: {
    target: "es2022",
    lib: { entry: { index: "src/index.ts" }, formats: ["es"] },
    rolldownOptions: {
      external: [/^react/, /^@wakeline\/client/],
      // Frameworks with server components render what imports the hooks on the client, too.
      output: { banner: '"use client";' },
    },
  },
  // The tests run with the client's source: it need not be built first.
  resolve: { conditions: ["@wakeline/source"] },
  ssr: { resolve: { conditions: ["@wakeline/source"] } },
  test: {
    include: ["tests/**/*.test.tsx"],
    environment: "jsdom",
    globalSetup: "../testing/setup.ts",
    testTimeout: 60_000,
    hookTimeout: 60_000,
    server: { deps: { inline: [/@wakeline/] } },
  },
});
