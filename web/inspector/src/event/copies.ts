/** Programs that read a session from an event on, to be pasted. */

import { sessionPath } from "../api.ts";

export type Language = "curl" | "EventSource" | "Python" | "TypeScript";

export const LANGUAGES: readonly Language[] = ["curl", "EventSource", "Python", "TypeScript"];

/** The program in a language; `cursor` is where it begins, and `asks` whether the gateway asks for a token. */
export function programOf(language: Language, url: string, name: string, cursor: string, asks: boolean): string {
  const path = `${url}${sessionPath(name, "events")}?from=${encodeURIComponent(cursor)}`;
  switch (language) {
    case "curl": {
      const token = asks ? ' -H "Authorization: Bearer $WAKELINE_TOKEN"' : "";
      return `curl -N ${shell(path)} -H 'Accept: text/event-stream'${token}`;
    }
    case "EventSource": {
      if (!asks) {
        return `const source = new EventSource(${script(path)});\nsource.onmessage = ({ data }) => console.log(JSON.parse(data));`;
      }
      return [
        "// The cookie wakeline_token, or a ticket: POST /v1/tickets.",
        `const source = new EventSource(${script(path)}, { withCredentials: true });`,
        "source.onmessage = ({ data }) => console.log(JSON.parse(data));",
      ].join("\n");
    }
    case "Python": {
      return [
        ...(asks ? ["# The token is that of WAKELINE_TOKEN."] : []),
        "import asyncio",
        "",
        "from wakeline import SessionClient",
        "",
        "",
        "async def main() -> None:",
        `    async with SessionClient(${python(url)}) as client:`,
        `        async for event in client.session(${python(name)}).events(from_=${python(cursor)}):`,
        "            print(event)",
        "",
        "",
        "asyncio.run(main())",
      ].join("\n");
    }
    case "TypeScript": {
      const token = asks ? ", token: process.env.WAKELINE_TOKEN!" : "";
      return [
        'import { connect } from "@wakeline/client";',
        "",
        `const session = connect({ url: ${script(url)}${token} }).session(${script(name)});`,
        `for await (const event of session.events({ from: ${script(cursor)} })) console.log(event);`,
      ].join("\n");
    }
  }
}

/** A text in quotation marks that a shell takes as it is. */
function shell(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A text as a literal of JavaScript; a page may have it in a script, too. */
function script(text: string): string {
  return JSON.stringify(text).replaceAll("<", "\\u003c");
}

/** A text as a literal of Python, which knows the escapes of JSON for what is not ASCII, but no surrogate pairs. */
function python(text: string): string {
  const escaped = Array.from(text, (letter) => {
    const code = letter.codePointAt(0) ?? 0;
    if (letter === '"' || letter === "\\") return `\\${letter}`;
    if (code >= 32 && code < 127) return letter;
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
  return `"${escaped.join("")}"`;
}
