/** vitest's global set-up: one gateway without keys and one with, for all test files. */

import type { TestProject } from "vitest/node";
import { gateway } from "./gateway.ts";

declare module "vitest" {
  interface ProvidedContext {
    open: string;
    keyed: string;
  }
}

export default async function setup(project: TestProject) {
  const gateways = await Promise.all([gateway(), gateway({ keys: true })]);
  project.provide("open", gateways[0].url);
  project.provide("keyed", gateways[1].url);
  return async () => {
    await Promise.all(gateways.map(({ kill }) => kill()));
  };
}
