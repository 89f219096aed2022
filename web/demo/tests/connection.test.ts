import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Connection, type Source } from "../src/connection.ts";

class FakeSource implements Source {
  readyState = 0;
  onopen: ((event: Event) => unknown) | null = null;
  onmessage: ((event: MessageEvent<string>) => unknown) | null = null;
  onerror: ((event: Event) => unknown) | null = null;
  cursor: string;

  constructor(cursor: string) {
    this.cursor = cursor;
  }

  close(): void {
    this.readyState = 2;
  }

  opens(): void {
    this.readyState = 1;
    this.onopen?.(new Event("open"));
  }

  brings(data: string, lastEventId: string): void {
    this.onmessage?.({ data, lastEventId } as MessageEvent<string>);
  }

  breaks(readyState: 0 | 2): void {
    this.readyState = readyState;
    this.onerror?.(new Event("error"));
  }
}

describe("a connection", () => {
  let sources: FakeSource[];
  let received: string[];
  let settled: boolean;

  beforeEach(() => {
    vi.useFakeTimers();
    sources = [];
    received = [];
    settled = false;
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function connect(cursor = "beginning"): Connection {
    return new Connection(
      {
        open: (from) => {
          const source = new FakeSource(from);
          sources.push(source);
          return source;
        },
        deliver: (data) => received.push(data),
        settled: () => settled,
        changed: () => {},
      },
      cursor,
    );
  }

  function latest(): FakeSource {
    const source = sources.at(-1);
    if (!source) throw new Error("no source was opened");
    return source;
  }

  it("leaves a broken stream to the browser, which resumes it", () => {
    const connection = connect();
    latest().opens();
    latest().breaks(0);
    expect(connection.link).toBe("lost");
    latest().opens();
    expect(connection.link).toBe("open");
    expect(sources).toHaveLength(1);
  });

  it("is made anew from its cursor after the browser gave up", () => {
    const connection = connect();
    latest().opens();
    latest().brings("{}", "abc-1");
    latest().breaks(2);
    vi.advanceTimersByTime(999);
    expect(sources).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(sources.map((source) => source.cursor)).toEqual(["beginning", "abc-1"]);
    expect(connection.link).toBe("lost");
  });

  it("is not lost before it was ever there", () => {
    const connection = connect();
    latest().breaks(2);
    expect(connection.link).toBe("opening");
  });

  it("is done when the browser was told to stop and the end has been seen", () => {
    const connection = connect();
    latest().opens();
    settled = true;
    latest().brings("{}", "abc-9");
    latest().breaks(0);
    expect(sources.map((source) => [source.cursor, source.readyState])).toEqual([
      ["beginning", 2],
      ["abc-9", 0],
    ]);
    expect(connection.link).toBe("open");
    latest().breaks(2);
    expect(connection.link).toBe("done");
    vi.advanceTimersByTime(10_000);
    expect(sources).toHaveLength(2);
  });

  it("asks for more at once only once", () => {
    connect();
    latest().opens();
    settled = true;
    latest().breaks(0);
    latest().breaks(0);
    expect(sources).toHaveLength(2);
  });

  it("takes nothing more once it was stopped", () => {
    const connection = connect("abc-7");
    latest().opens();
    connection.stop();
    latest().brings("{}", "abc-8");
    latest().breaks(2);
    vi.advanceTimersByTime(10_000);
    expect(received).toEqual([]);
    expect(connection.cursor).toBe("abc-7");
    expect(sources).toHaveLength(1);
  });
});
