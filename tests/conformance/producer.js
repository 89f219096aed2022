// Creates a stream and appends numbers to it, by the official producer, then closes it: node producer.js URL COUNT
import { setTimeout as sleep } from "node:timers/promises"
import { DurableStream, IdempotentProducer } from "@durable-streams/client"

const [url, count] = process.argv.slice(2)
// The producer leaves it to its user to send a request again of which nobody knows whether it came.
async function again(...request) {
  for (;;) {
    try {
      return await fetch(...request)
    } catch {
      await sleep(20)
    }
  }
}

const stream = await DurableStream.create({ url, contentType: "application/json", fetch: again })
const failures = []
const producer = new IdempotentProducer(stream, "numbers", { fetch: again, lingerMs: 1, onError: (e) => failures.push(e) })
for (let n = 0; n < Number(count); n++) {
  producer.append(JSON.stringify({ n, text: "x".repeat((n * 37) % 300) }))
  await sleep(10)
}
await producer.flush()
await producer.close()
if (failures.length > 0) throw failures[0]
