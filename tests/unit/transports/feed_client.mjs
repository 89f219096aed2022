// A client by another hand: Node's own WebSocket. Reads a session to its end, cut after each frame, and prints what came.
const [url, session] = process.argv.slice(2)
const told = []
let cursor = 'beginning'
let connections = 0

function connect() {
  connections += 1
  const socket = new WebSocket(url)
  const frames = []
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data)
    frames.push(frame.type)
    if (frame.type === 'ready') socket.send(JSON.stringify({ type: 'subscribe', session, from: cursor }))
    if ('cursor' in frame) cursor = frame.cursor
    if (frame.type === 'events') {
      told.push(...frame.events.map((event) => event.data))
      if (connections < 4) socket.close(1000)
    }
    if (frame.type === 'end') socket.close(1000, frame.reason)
  }
  socket.onclose = ({ code, reason, wasClean }) => {
    if (frames.at(-1) !== 'end') return connect()
    console.log(JSON.stringify({ told, connections, code, reason, wasClean, extensions: socket.extensions }))
  }
}
connect()
