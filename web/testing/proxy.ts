/** A proxy that fails in the ways that networks fail: one fault for each connection, by a seed. */

import { createServer, connect as dial, type Server, type Socket } from "node:net";
import type { Random } from "./random.ts";

/** What happens to a connection. */
export type Fault =
  /** It ends after so many bytes of the answer. */
  | { readonly kind: "cut"; readonly after: number; readonly reset: boolean }
  /** It ends after so many bytes of the request. */
  | { readonly kind: "cut request"; readonly after: number }
  /** After so many bytes of the answer nothing moves any more, and nothing is closed. */
  | { readonly kind: "stall"; readonly after: number }
  /** It is accepted, and nothing answers. */
  | { readonly kind: "half-open" }
  /** The proxy answers with an error of its own. */
  | { readonly kind: "answer"; readonly status: 401 | 502 | 503; readonly headers: string; readonly body: string }
  /** The answer is held back until it is whole. */
  | { readonly kind: "buffer" }
  /** The answer is held back for some time, in which the answers of later connections overtake it. */
  | { readonly kind: "hold"; readonly ms: number }
  /** Every piece of the answer's body comes twice. */
  | { readonly kind: "duplicate" }
  /** The answer comes piece by piece, a few bytes at a time. */
  | { readonly kind: "trickle"; readonly bytes: number };

const expired = JSON.stringify({ error: { code: "token_expired", message: "the token has expired", hint: "" } });
const busy = JSON.stringify({ error: { code: "limit_reached", message: "too many connections", hint: "" } });

/** A fault by chance. */
export function fault(random: Random): Fault {
  switch (random.between(0, 11)) {
    case 0:
    case 1:
    case 2:
      return {
        kind: "cut",
        after: random.between(0, random.pick([60, 600, 6_000, 40_000])),
        reset: random.chance(0.5),
      };
    case 3:
      return { kind: "cut request", after: random.between(0, 400) };
    case 4:
      return { kind: "stall", after: random.between(0, random.pick([60, 600, 6_000])) };
    case 5:
      return { kind: "half-open" };
    case 6:
      return { kind: "answer", status: 401, headers: "WWW-Authenticate: Bearer", body: expired };
    case 7:
      return random.chance(0.5)
        ? { kind: "answer", status: 503, headers: "Retry-After: 0", body: busy }
        : { kind: "answer", status: 502, headers: "Content-Type: text/html", body: "<h1>Bad Gateway</h1>" };
    case 8:
      return { kind: "buffer" };
    case 9:
      return { kind: "duplicate" };
    case 10:
      // Shorter than the time-outs of the tests' clients: they are to take the answer late, not to ask again.
      return { kind: "hold", ms: random.between(20, random.pick([60, 350])) };
    default:
      return { kind: "trickle", bytes: random.between(1, 7) };
  }
}

export interface FaultProxy {
  readonly url: string;
  /** The faults that connections had. */
  readonly had: Fault[];
  close(): Promise<void>;
}

/** Start a proxy before a gateway; `next` gives the fault of each new connection, none for a working one. */
export async function faultProxy(target: string, next: () => Fault | undefined): Promise<FaultProxy> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  const had: Fault[] = [];
  const server: Server = createServer({ noDelay: true }, (client) => {
    const chosen = next();
    if (chosen) had.push(chosen);
    track(client);
    if (chosen?.kind === "half-open") return;
    if (chosen?.kind === "answer") {
      const { status, headers, body } = chosen;
      const head = `HTTP/1.1 ${status} Error\r\n${headers}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close`;
      client.once("data", () => client.end(`${head}\r\n\r\n${body}`));
      return;
    }
    const gateway = dial({ host: hostname, port: Number(port), noDelay: true });
    track(gateway);
    forward(client, gateway, chosen);
  });
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${address.port}`,
    had,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function forward(client: Socket, gateway: Socket, fault: Fault | undefined): void {
  let sent = 0;
  let held: Buffer[] = [];
  let stalled = false;
  const end = () => {
    if (stalled) return;
    if (fault?.kind === "buffer") client.write(Buffer.concat(held));
    client.end();
    gateway.end();
  };
  gateway.on("end", end);
  gateway.on("close", end);
  client.on("end", () => gateway.end());
  client.on("close", () => gateway.destroy());
  client.on("data", (piece) => {
    if (fault?.kind !== "cut request") {
      gateway.write(piece);
      return;
    }
    gateway.write(piece.subarray(0, Math.max(0, fault.after - sent)));
    sent += piece.length;
    if (sent >= fault.after) client.destroy();
  });
  if (fault?.kind === "hold") {
    gateway.pause();
    client.once("data", () => setTimeout(() => gateway.resume(), fault.ms));
  }
  const doubler = fault?.kind === "duplicate" ? new Doubler() : undefined;
  gateway.on("data", (piece) => {
    if (stalled) return;
    switch (fault?.kind) {
      case "cut":
      case "stall": {
        const left = fault.after - sent;
        sent += piece.length;
        client.write(piece.subarray(0, Math.max(0, left)));
        if (piece.length < left) return;
        if (fault.kind === "stall") stalled = true;
        else if (fault.reset) client.resetAndDestroy();
        else client.end();
        return;
      }
      case "buffer":
        held.push(piece);
        // What is known to be whole is passed on: an answer with a length, whose connection stays open.
        if (isWhole(Buffer.concat(held))) {
          client.write(Buffer.concat(held));
          held = [];
        }
        return;
      case "duplicate":
        client.write((doubler as Doubler).take(piece));
        return;
      case "trickle":
        // In small writes, with turns of the event loop between them.
        for (let at = 0; at < piece.length; at += fault.bytes * 40) {
          const part = piece.subarray(at, at + fault.bytes * 40);
          setImmediate(() => client.write(part.subarray(0, fault.bytes)) && client.write(part.subarray(fault.bytes)));
        }
        return;
      default:
        client.write(piece);
    }
  });
}

function isWhole(answer: Buffer): boolean {
  const end = answer.indexOf("\r\n\r\n");
  const length = /\r\ncontent-length: (\d+)/i.exec(answer.subarray(0, Math.max(0, end)).toString("latin1"));
  return end >= 0 && length !== null && answer.length >= end + 4 + Number(length[1]);
}

/** Repeats the pieces of an answer's body: the chunks of a stream, or the text frames of a WebSocket. */
class Doubler {
  #held = Buffer.alloc(0);
  #form: "chunks" | "frames" | "other" | undefined;

  take(piece: Buffer): Buffer {
    this.#held = Buffer.concat([this.#held, piece]);
    const passed: Buffer[] = [];
    for (;;) {
      if (this.#form === undefined) {
        const end = this.#held.indexOf("\r\n\r\n");
        if (end < 0) break;
        const head = this.#held.subarray(0, end + 4).toString("latin1");
        this.#form = head.includes(" 101 ") ? "frames" : /transfer-encoding: chunked/i.test(head) ? "chunks" : "other";
        passed.push(this.#cut(end + 4));
      }
      const size = this.#size();
      if (size === undefined || size > this.#held.length) break;
      const whole = this.#cut(size);
      passed.push(whole);
      if (this.#form === "chunks" && whole[0] === 0x30) this.#form = undefined;
      else if (this.#form === "chunks" || whole[0] === 0x81) passed.push(whole);
    }
    return Buffer.concat(passed);
  }

  #cut(size: number): Buffer {
    const part = this.#held.subarray(0, size);
    this.#held = this.#held.subarray(size);
    return part;
  }

  /** The bytes of the next piece; `undefined` if they cannot be known yet. */
  #size(): number | undefined {
    const held = this.#held;
    if (this.#form === "other") return held.length || undefined;
    if (this.#form === "chunks") {
      const line = held.indexOf("\r\n");
      return line < 0 ? undefined : line + 2 + Number.parseInt(held.subarray(0, line).toString("latin1"), 16) + 2;
    }
    const length = (held[1] ?? 0) & 0x7f;
    if (held.length < 2) return undefined;
    if (length < 126) return 2 + length;
    if (length === 126) return held.length < 4 ? undefined : 4 + held.readUInt16BE(2);
    return held.length < 10 ? undefined : 10 + Number(held.readBigUInt64BE(2));
  }
}
