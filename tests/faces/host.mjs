// Pages in one process, because to import a frontend's packages takes longer than most tests.
// Each line on stdin is a command for a page, answered by one line on stdout.
import { AsyncLocalStorage } from "node:async_hooks";
import { createInterface } from "node:readline";

const pages = new Map();
// Which page runs: what it awaits, and what calls it later, runs in its context.
const current = new AsyncLocalStorage();
const plain = globalThis.fetch;

/** The requests of a page end when it is closed; those that it makes later are never answered. */
globalThis.fetch = (resource, init) => {
  const { closed } = current.getStore();
  if (closed.aborted) return new Promise(() => {});
  const own = init?.signal ?? (resource instanceof Request ? resource.signal : undefined);
  return plain(resource, { ...init, signal: own ? AbortSignal.any([own, closed]) : closed });
};

process.on("unhandledRejection", (error) => {
  const { closed, commands } = current.getStore();
  if (closed.aborted) return;
  if (!commands?.rejected) throw error;
  commands.rejected(error);
});

async function open({ page, script, args, variables }) {
  const { default: begin } = await import(`./${script}`);
  const closing = new AbortController();
  const made = { closing, closed: closing.signal };
  pages.set(page, made);
  made.commands = await current.run(made, () => begin(args, variables));
}

function close({ page }) {
  pages.get(page).closing.abort();
  pages.delete(page);
}

async function run({ command, page, ...asked }) {
  if (command === "open") return open({ page, ...asked });
  if (command === "close") return close({ page });
  const made = pages.get(page);
  return current.run(made, () => made.commands[command](asked));
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).then(
    (result) => ({ result: result ?? null }),
    (error) => ({ failed: error.stack }),
  );
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
