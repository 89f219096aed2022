// A page with useChat, without the page: the Chat object of @ai-sdk/react with the stock transport of `ai`.
export default async function begin([version, api, id], variables) {
  const { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } = await import(`ai${version}`);
  const { Chat } = await import(`@ai-sdk/react${version}`);

  let token = variables.TOKEN;
  const body = JSON.parse(variables.BODY ?? "{}");
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

  return {
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
}
