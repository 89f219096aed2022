// A page with TanStack AI's useChat, without the page: the ChatClient that all of its frameworks build on, with the stock
// transport for Durable Streams.
import {
  durableStreamConnection,
  materializeSnapshotFromDurableStream,
  toDurableChatSessionResponse,
} from "@durable-streams/tanstack-ai-transport";
import { ChatClient } from "@tanstack/ai-client";

export default async function begin([gateway, id], variables) {
  const readUrl = `${gateway}/v1/stream/${id}`;
  const tokens = JSON.parse(variables.TOKENS ?? "[]");
  const headers = {};
  const authorize = () => {
    if (tokens.length) headers.authorization = `Bearer ${tokens.length > 1 ? tokens.shift() : tokens[0]}`;
  };
  authorize();

  // The page sends a message as an input of the chat's workflow.
  const asInput = async (url, init) => {
    const message = JSON.parse(init.body).messages.at(-1);
    const update = { id: crypto.randomUUID(), kind: "update", name: "message", args: [message], start: "chat", wait: 0 };
    return fetch(url, { ...init, body: JSON.stringify(update) });
  };

  // The page's own server takes a message, and writes the answer with the package's helper.
  const said = JSON.parse(variables.SAID ?? "[]");
  async function* answer() {
    yield { type: "RUN_STARTED", runId: "run", threadId: id };
    yield { type: "TEXT_MESSAGE_START", messageId: "answer", role: "assistant" };
    for (const delta of said) yield { type: "TEXT_MESSAGE_CONTENT", messageId: "answer", delta, content: "not stored" };
    yield { type: "TEXT_MESSAGE_END", messageId: "answer" };
    yield { type: "RUN_FINISHED", runId: "run", threadId: id };
  }
  const asRequest = (_, init) =>
    toDurableChatSessionResponse({
      stream: { writeUrl: readUrl, headers },
      newMessages: JSON.parse(init.body).messages.slice(-1),
      responseStream: answer(),
    });

  // A reload with the messages that a server has rendered.
  const rendered = variables.RENDERED && (await materializeSnapshotFromDurableStream({ readUrl, headers }));

  const stock = durableStreamConnection({
    sendUrl: `${gateway}/v1/sessions/${id}/inputs`,
    readUrl,
    headers,
    initialOffset: rendered?.offset,
    emitSnapshotOnSubscribe: variables.SNAPSHOT === "true",
    fetchClient: variables.SAID ? asRequest : asInput,
  });
  let cuts = 0;
  const lasting = {
    ...stock,
    async *subscribe(signal) {
      while (!signal?.aborted) {
        try {
          return yield* stock.subscribe(signal);
        } catch (error) {
          if (error.status && error.status !== 401) throw error;
          authorize();
          cuts += 1;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    },
  };

  const errors = [];
  const types = [];
  let connection;
  let generating = false;
  const chat = new ChatClient({
    threadId: id,
    initialMessages: rendered?.messages ?? [],
    connection: variables.STOCK ? stock : lasting,
    onChunk: ({ type }) => void types.push(type),
    onError: (error) => void errors.push(error.message),
    onConnectionStatusChange: (status) => {
      connection = status;
    },
    onSessionGeneratingChange: (is) => {
      generating = is;
    },
  });
  chat.subscribe();
  const quietly = (running) => void running.catch((error) => errors.push(error.message));

  return {
    send: ({ text }) => quietly(chat.sendMessage(text)),
    subscribe: () => chat.subscribe(),
    stop: () => chat.stop(),
    reload: () => quietly(chat.reload()),
    state: () => ({
      status: chat.getStatus(),
      loading: chat.getIsLoading(),
      messages: chat.getMessages(),
      connection,
      generating,
      cuts,
      errors,
      types,
    }),
  };
}
