/** The SharedWorker that has the connections of all tabs; its name is that of what they share. */

import { type FromHost, type FromTab, Host, type HostWire } from "./host.ts";
import { Http } from "./http.ts";
import { LocalHub, type Transport } from "./hub.ts";
import type { Timing } from "./timing.ts";
import { Tokens } from "./tokens.ts";

interface Config {
  readonly url: string;
  readonly timing: Timing;
  readonly transport: Transport;
  readonly tokens: boolean;
  readonly credentials?: RequestCredentials;
}

let host: Host | undefined;

addEventListener("connect", (event) => {
  const [port] = (event as MessageEvent).ports;
  if (!port) return;
  const wire: HostWire = { post: (message: FromHost) => port.postMessage(message), receive: () => undefined };
  port.onmessage = ({ data }: MessageEvent<Config | FromTab>) => {
    if ("do" in data) wire.receive(data);
    else {
      const { url, timing, transport, tokens, credentials } = data;
      host ??= new Host((token) => {
        const source = new Tokens(tokens ? token : undefined);
        return new LocalHub(new Http(url, source, timing, { credentials }), transport);
      });
      host.add(wire);
    }
  };
});
