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
      response.closed.catch(() => {}).finally(() => resolve({ offset, closed }))
      response.subscribeJson((batch) => {
        batch.items.forEach(print)
        offset = batch.offset
        closed = batch.streamClosed
      })
    }, () => resolve({ offset, closed: false }))
  })
}

if (mode === "eventsource") {
  const source = new EventSource(`${url}?offset=-1&live=sse`)
  const waiting = setInterval(() => {}, 1000) // node does not wait for a source that waits to connect again
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
