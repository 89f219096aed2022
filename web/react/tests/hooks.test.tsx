import { cleanup, render, screen, waitFor } from "@testing-library/react";
import { type Client, type ConnectOptions, connect } from "@wakeline/client";
import { type ReactNode, StrictMode } from "react";
import { renderToString } from "react-dom/server";
import { afterEach, expect, inject, onTestFinished, test, vi } from "vitest";
import { fresh, publish, request } from "../../testing/gateway.ts";
import {
  useEvents,
  useMessages,
  usePresence,
  useRequests,
  useRun,
  useSession,
  WakelineProvider,
} from "../src/index.ts";

const url = inject("open");
const PATIENCE = { timeout: 30_000 };

afterEach(cleanup);

function client(options: ConnectOptions = {}): Client {
  const made = connect({ url, ...options });
  onTestFinished(() => made.close());
  return made;
}

function show(made: Client, children: ReactNode) {
  const tree = (inner: ReactNode) => (
    <StrictMode>
      <WakelineProvider client={made}>{inner}</WakelineProvider>
    </StrictMode>
  );
  const shown = render(tree(children));
  return { ...shown, again: (inner: ReactNode) => shown.rerender(tree(inner)) };
}

const text = (id: string) => screen.getByTestId(id).textContent;
const piece = (id: string, data: string) => ({ topic: "answer", data, message: { id, op: "text" } });

function Answer({ name, enabled = true }: { name: string | null; enabled?: boolean }) {
  const messages = useMessages(name, { topic: "answer", enabled });
  return <p data-testid="answer">{messages.map(({ id, value }) => `${id}: ${value}`).join("; ")}</p>;
}

function State({ name }: { name: string }) {
  const { state } = useSession(name);
  return <p data-testid="state">{state.status}</p>;
}

test("messages grow on the page, in StrictMode, on one reading for all components", async () => {
  const name = fresh();
  await publish(url, name, piece("m1", "Hel"), { topic: "thought", data: "hm", message: { id: "t", op: "text" } });
  show(
    client(),
    <>
      <Answer name={name} />
      <State name={name} />
    </>,
  );
  await waitFor(() => expect(text("answer")).toBe("m1: Hel"), PATIENCE);
  await waitFor(() => expect(text("state")).toBe("live"), PATIENCE);
  await publish(url, name, piece("m1", "lo"), piece("m2", "!"));
  await waitFor(() => expect(text("answer")).toBe("m1: Hello; m2: !"), PATIENCE);
  expect((await request(url, "GET", `/v1/sessions/${name}`)).devices).toBe(1);
});

test("what is not enabled reads nothing, until it is", async () => {
  const name = fresh();
  await publish(url, name, piece("m1", "here"));
  const { again } = show(client(), <Answer name={name} enabled={false} />);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(text("answer")).toBe("");
  again(<Answer name={name} enabled />);
  await waitFor(() => expect(text("answer")).toBe("m1: here"), PATIENCE);
  again(<Answer name={null} />);
  await waitFor(() => expect(text("answer")).toBe(""), PATIENCE);
});

test("another name reads another session", async () => {
  const [one, other] = [fresh(), fresh()];
  await publish(url, one, piece("m", "one"));
  await publish(url, other, piece("m", "other"));
  const { again } = show(client(), <Answer name={one} />);
  await waitFor(() => expect(text("answer")).toBe("m: one"), PATIENCE);
  again(<Answer name={other} />);
  await waitFor(() => expect(text("answer")).toBe("m: other"), PATIENCE);
});

test("a component that is gone reads no more, and one that returns reads again", async () => {
  const name = fresh();
  await publish(url, name, piece("m", "a"));
  const made = client();
  const { again } = show(made, <Answer name={name} />);
  await waitFor(() => expect(text("answer")).toBe("m: a"), PATIENCE);
  again(null);
  const devices = async () => (await request(url, "GET", `/v1/sessions/${name}`)).devices;
  await waitFor(async () => expect(await devices()).toBe(0), PATIENCE);
  await publish(url, name, piece("m", "b"));
  again(<Answer name={name} />);
  await waitFor(() => expect(text("answer")).toBe("m: ab"), PATIENCE);
});

test("events, the latest of them", async () => {
  const name = fresh();
  await publish(url, name, ...Array.from({ length: 50 }, (_, data) => ({ topic: "n", data })));
  function Events() {
    const { events, state } = useEvents(name, { limit: 3 });
    return <p data-testid="events">{`${state.status} ${events.map(({ data }) => data).join(" ")}`}</p>;
  }
  show(client(), <Events />);
  await waitFor(() => expect(text("events")).toBe("live 47 48 49"), PATIENCE);
  await request(url, "POST", `/v1/sessions/${name}/close`);
  await waitFor(() => expect(text("events")).toContain("ended 48 49"), PATIENCE);
});

test("a request for input is answered, and disappears", async () => {
  const name = fresh();
  await request(url, "POST", `/v1/sessions/${name}/requests`, { id: "r", reason: "approval", choices: ["yes", "no"] });
  function Requests() {
    return useRequests(name).map(({ id, choices, answer }) => (
      <button type="button" key={id} onClick={() => answer("yes")}>
        {choices?.join(" or ")}
      </button>
    ));
  }
  show(client({ device: "phone" }), <Requests />);
  await waitFor(() => screen.getByText("yes or no"), PATIENCE);
  screen.getByText("yes or no").click();
  await waitFor(() => expect(screen.queryByText("yes or no")).toBeNull(), PATIENCE);
});

test("devices come and go", async () => {
  const name = fresh();
  await publish(url, name, { topic: "n" });
  function Presence() {
    const devices = usePresence(name);
    return (
      <p data-testid="devices">
        {devices
          .map(({ device }) => device)
          .sort()
          .join(" ")}
      </p>
    );
  }
  show(client({ device: "laptop" }), <Presence />);
  await waitFor(() => expect(text("devices")).toBe("laptop"), PATIENCE);
  const phone = client({ device: "phone" });
  const reading = phone.session(name).events();
  await waitFor(() => expect(text("devices")).toBe("laptop phone"), PATIENCE);
  await waitFor(() => expect(reading.state.status).toBe("live"), PATIENCE);
  phone.close();
  await waitFor(() => expect(text("devices")).toBe("laptop"), PATIENCE);
});

test("a refusal is a state of the page, not an exception, and one line of the console", async () => {
  const name = fresh();
  const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
  onTestFinished(() => warn.mockRestore());
  show(
    client(),
    <>
      <State name={name} />
      <Answer name={name} />
    </>,
  );
  await waitFor(() => expect(text("state")).toBe("refused"), PATIENCE);
  expect(warn.mock.calls).toEqual([[expect.stringMatching(/^wakeline: session_not_found: .+/)]]);
});

test("on a server the page is rendered empty, and nothing is read", () => {
  function Run() {
    return <i>{useRun("order-1")?.status ?? "unknown"}</i>;
  }
  const unused = client({ fetch: () => expect.fail("a server reads nothing") });
  const page = renderToString(
    <WakelineProvider client={unused}>
      <Answer name="order-1" />
      <State name="order-1" />
      <Run />
    </WakelineProvider>,
  );
  expect(page).toContain("connecting");
  expect(page).toContain("<i>unknown</i>");
});
