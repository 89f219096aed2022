// Reads a stream of JSON messages to its end and prints each as a line: node reader.js MODE URL
import { stream } from "@durable-streams/client"

const [mode, url] = process.argv.slice(2)
const backoffOptions = { initialDelay: 20, maxDelay: 200, multiplier: 1.5 }
const print = (message) => console.log(JSON.stringify(message))

// One connection of the official client, which reconnects by itself over long-poll; gives the offset after what it got.
function read(offset, live) {
  return new Promise((resolve) => {
    stream({ url, offset, live, backoffOptions, json: true }).then((response) => {
      let closed = false
      const unsubscribe = response.subscribeJson((batch) => {
        batch.items.forEach(print)
        offset = batch.offset
        closed = batch.streamClosed
      })
      // It says that it is closed before it gives its last batch, if the first answer is the last, too.
      const last = () => {
        unsubscribe()
        resolve({ offset, closed })
      }
      response.closed.catch(() => {}).finally(() => setTimeout(last, 100))
    }, () => resolve({ offset, closed: false }))
  })
}

if (mode === "eventsource") {
  const source = new EventSource(`${url}?offset=-1&live=sse`)
  const waiting = setInterval(() => {}, 1000) // node does not wait for a source that waits to connect again
  source.addEventListener("error", (event) => {
    if (source.readyState !== EventSource.CLOSED) return
    console.error(`the source was closed for good: ${event.message ?? event.type}`)
    process.exit(1)
  })
  source.addEventListener("data", (event) => JSON.parse(event.data).forEach(print))
  source.addEventListener("control", (event) => {
    if (!JSON.parse(event.data).streamClosed) return
    source.close()
    clearInterval(waiting)
  })
} else {
  // Over server-sent events the client ends when it is cut: who uses it goes on from the last offset.
  let at = { offset: "-1", closed: false }
  while (!at.closed) at = await read(at.offset, mode)
}
