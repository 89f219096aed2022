import { runConformanceTests } from "@durable-streams/server-conformance-tests"

// The package's own runner finds no tests when it is installed (its file lies in node_modules, which vitest passes over).
runConformanceTests({ baseUrl: process.env.GATEWAY_URL, longPollTimeoutMs: 500 })
