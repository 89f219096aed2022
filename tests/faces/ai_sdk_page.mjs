// A page with useChat, without the page: the Chat object of @ai-sdk/react with the stock transport of `ai`.
// Each line on stdin is a command, answered by one line on stdout.
import { createInterface } from "node:readline";

const [version, api, id] = process.argv.slice(2);
const { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } = await import(`ai${version}`);
const { Chat } = await import(`@ai-sdk/react${version}`);

let token = process.env.TOKEN;
const body = JSON.parse(process.env.BODY ?? "{}");
const errors = [];
const finishes = [];
const headers = () => (token ? { authorization: `Bearer ${token}` } : {});
let running = null;
const chat = new Chat({
  id,
  transport: new DefaultChatTransport({
    api: version === "6" ? `${api}?sdk=6` : api,
    headers,
    body,
    prepareReconnectToStreamRequest: () => {
      const query = new URLSearchParams({ sdk: version, ...(running ? { turn: running } : {}) });
      return { api: `${api}/${id}/stream?${query}`, headers: headers() };
    },
  }),
  sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  onError: (error) => errors.push(error.message),
  onFinish: ({ isAbort, isDisconnect, isError, finishReason }) =>
    finishes.push({ isAbort, isDisconnect, isError, finishReason }),
});

const commands = {
  send: ({ text }) => void chat.sendMessage({ text }).catch((error) => errors.push(error.message)),
  resume: () => void chat.resumeStream().catch((error) => errors.push(error.message)),
  approve: ({ approval, approved, reason }) => chat.addToolApprovalResponse({ id: approval, approved, reason }),
  output: ({ tool, toolCallId, output }) => chat.addToolOutput({ tool, toolCallId, output }),
  regenerate: () => void chat.regenerate().catch((error) => errors.push(error.message)),
  stop: async () => (await fetch(`${api}/${id}/stop`, { method: "POST", headers: headers() })).json(),
  load: async () => {
    const answer = await fetch(`${api}/${id}/messages`, { headers: headers() });
    const loaded = await answer.json();
    chat.messages = loaded.messages;
    running = loaded.running;
  },
  token: (asked) => {
    token = asked.token;
  },
  state: () => ({ status: chat.status, messages: chat.messages, errors, finishes }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...asked } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify((await commands[command](asked)) ?? null)}\n`);
}
