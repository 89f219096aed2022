// The reference server of Durable Streams, in memory, or in files with a directory as argument.
import { DurableStreamTestServer } from "@durable-streams/server"

const server = new DurableStreamTestServer({ port: 0, host: "127.0.0.1", dataDir: process.argv[2], compression: false })
console.log(await server.start())
