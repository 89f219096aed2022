/** Gateways for tests: real processes on ports of their own, with sessions in memory. */

import { type ChildProcess, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { createServer } from "node:net";
import { join } from "node:path";

const python = process.env.WAKELINE_PYTHON ?? join(import.meta.dirname, "../../.venv/bin/python");
const secret = "a secret of the tests, long enough for HS256";

export interface Gateway {
  readonly url: string;
  kill(): Promise<void>;
  start(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Start a gateway; `keys` has it require tokens, `engine` names its store. */
export async function gateway(how: { keys?: boolean; engine?: string; data?: string } = {}): Promise<Gateway> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = ["-m", "wakeline", "serve", "--port", String(port), "--engine", how.engine ?? "memory"];
  if (how.data) args.push("--data", how.data);
  if (!how.keys) args.push("--no-auth");
  const env = { ...process.env, WAKELINE_DURABILITY: "process", ...(how.keys && { WAKELINE_TOKEN_SECRET: secret }) };
  let child: ChildProcess | undefined;
  const start = async () => {
    let output = "";
    const started = spawn(python, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    child = started;
    for (const stream of [started.stdout, started.stderr]) {
      stream?.on("data", (piece) => {
        output = (output + piece).slice(-5_000);
      });
    }
    for (;;) {
      const answer = await fetch(`${url}/healthz`).catch(() => undefined);
      if (answer?.ok) return;
      if (started.exitCode !== null) throw new Error(`the gateway ended:\n${output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const kill = async () => {
    const ending = child;
    if (!ending || ending.exitCode !== null || ending.signalCode !== null) return;
    const over = new Promise((resolve) => ending.once("exit", resolve));
    ending.kill("SIGKILL");
    await over;
  };
  await start();
  return { url, start, kill };
}

/** A token that the gateways with keys accept. */
export function token(claims: { sub?: string; seconds?: number; wakeline?: Record<string, unknown> } = {}): string {
  const { sub = "alice", seconds = 60, wakeline } = claims;
  const now = Date.now() / 1000;
  const scope = { sessions: ["*"], allow: ["read", "ack", "publish", "manage", "input"], ...wakeline };
  const parts = [
    { alg: "HS256", typ: "JWT" },
    { sub, iat: now, exp: now + seconds, wakeline: scope },
  ];
  const signed = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** Append events to a session. */
export async function publish(url: string, session: string, ...events: object[]): Promise<void> {
  await request(url, "POST", `/v1/sessions/${encodeURIComponent(session)}/events`, { events });
}

export async function request(url: string, method: string, path: string, body?: unknown, bearer?: string) {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  const answer = await fetch(url + path, {
    method,
    headers,
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
}

/** A session name that no other test has. */
export function fresh(prefix = "s"): string {
  return `${prefix}-${randomBytes(6).toString("hex")}`;
}

/** Wait until a condition holds. */
export async function until(condition: () => unknown, what = String(condition), ms = 50_000): Promise<void> {
  const ends = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > ends) throw new Error(`expected within ${ms / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
