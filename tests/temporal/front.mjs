// A front for Temporal: TLS that asks for certificates, a key that must be right, and calls that are answered with an error.
// Arguments: HOST:PORT of Temporal, and options as JSON. Says its port, then nothing. `failing` has, by call or for `*`, status, message
// and, if that is not for ever, how often. `answering` has, by call, a message in base64, and how often it is the answer. A line on
// the standard input is other options as JSON, and takes effect at once.
import { readFileSync } from 'node:fs'
import http2 from 'node:http2'
import readline from 'node:readline'

const [target, given] = process.argv.slice(2)
const { cert, key, ca, apiKey, ...options } = JSON.parse(given)
let { failing = {}, answering = {} } = options
readline.createInterface({ input: process.stdin }).on('line', (line) => ({ failing = {}, answering = {} } = JSON.parse(line)))
const file = (path) => (path ? readFileSync(path) : undefined)
const server = cert
  ? http2.createSecureServer({ cert: file(cert), key: file(key), ca: file(ca), requestCert: !!ca, rejectUnauthorized: !!ca })
  : http2.createServer()
const upstream = http2.connect(`http://${target}`)

server.on('stream', (stream, headers) => {
  stream.on('error', () => {})
  const refuse = ([status, message]) =>
    stream.respond(
      { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': `${status}`, 'grpc-message': message },
      { endStream: true },
    )
  if (apiKey && headers.authorization !== `Bearer ${apiKey}`) return refuse([16, 'Request unauthorized.'])
  const call = headers[':path'].split('/').pop()
  const failure = failing[call] ?? failing['*']
  if (failure && (failure.length < 3 || failure[2]-- > 0)) return refuse(failure)
  const answer = answering[call]
  if (answer && answer[1]-- > 0) {
    const message = Buffer.from(answer[0], 'base64')
    const prefix = Buffer.alloc(5)
    prefix.writeUInt32BE(message.length, 1)
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    return stream.end(Buffer.concat([prefix, message]))
  }
  const request = upstream.request(headers)
  let trailers = {}
  request.on('error', () => stream.destroyed || stream.close(http2.constants.NGHTTP2_CANCEL))
  stream.on('close', () => request.destroyed || request.close(http2.constants.NGHTTP2_CANCEL))
  request.on('trailers', (found) => (trailers = found))
  request.on('response', (found, flags) => {
    if (stream.destroyed) return
    const endStream = !!(flags & http2.constants.NGHTTP2_FLAG_END_STREAM)
    stream.respond(found, { endStream, waitForTrailers: !endStream })
    if (!endStream) request.pipe(stream)
  })
  stream.on('wantTrailers', () => stream.sendTrailers(trailers))
  stream.pipe(request)
})
server.on('sessionError', () => {})
server.on('tlsClientError', () => {})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
