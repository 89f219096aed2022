import { join } from "node:path";
import type { ViteUserConfig } from "vitest/config";
import { singleFile } from "./single-file.ts";
import { sourceStamp } from "./stamp.ts";

/** How a page of the Python package is built: from the source in `root` into the one file `target`. */
export function page(root: string, target: string): ViteUserConfig {
  return {
    base: "./",
    build: {
      target: "es2022",
      modulePreload: false,
      cssCodeSplit: false,
      assetsInlineLimit: 1_000_000,
      rolldownOptions: { output: { codeSplitting: false } },
    },
    // The client's source becomes a part of the page.
    resolve: { conditions: ["@wakeline/source"] },
    // Vitest resolves like a server.
    ssr: { resolve: { conditions: ["@wakeline/source"] } },
    plugins: [singleFile(join(root, target), () => sourceStamp(root))],
    test: { include: ["tests/**/*.test.ts"], environment: "node", testTimeout: 60_000 },
  };
}
