import { defineConfig } from "vitest/config";
import { page } from "../building/page.ts";

export default defineConfig(page(import.meta.dirname, "../../src/wakeline/cli/demo/page.html"));
