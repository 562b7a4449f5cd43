/**
 * A fake in front of a real S3 server: passes everything on, or does what networks and overloaded servers do. A real server
 * can't be told to.
 */
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";

/** What becomes of a request; the others are passed on. */
export const TROUBLES = {
  "500": "it is answered with 500",
  "503": "it is answered with 503 SlowDown",
  reset: "the connection is reset before the server has seen it",
  lost: "the server does it, and the connection is reset before the answer",
  truncated: "the answer to a GET breaks off in the middle of its body",
  race: "a conditional write meets another writer of the same bytes, who was quicker: 412",
  silent: "nothing is answered, and nothing done",
} as const;
export type Trouble = keyof typeof TROUBLES;

export interface FlakyProxy {
  endpoint: string;
  trouble: Trouble | null;
  /** With trouble: every how manieth request has it. 1: all. */
  every: number;
  /** Requests that it is true for get no answer and do nothing. */
  holds: (method: string, path: string) => boolean;
  /** What has been held, as method and path. */
  held: string[];
  /** Requests that have had trouble. */
  troubled: number;
  /** Method and path of every request, in the order in which they came. */
  requests: string[];
  close(): Promise<void>;
}

/** `host`: where it listens. */
export async function flakyProxy(target: string, host = "127.0.0.1"): Promise<FlakyProxy> {
  const { hostname, port } = new URL(target);
  let passed = 0;
  const server = createServer((incoming, outgoing) => {
    proxy.requests.push(`${incoming.method} ${incoming.url}`);
    const { trouble } = proxy;
    const what = [incoming.method!, decodeURI(incoming.url!)] as const;
    if (proxy.holds(...what)) {
      proxy.held.push(what.join(" "));
    } else if (trouble !== null && concerns[trouble](incoming) && passed++ % proxy.every === 0) {
      proxy.troubled += 1;
      makeTrouble[trouble](incoming, outgoing).catch(() => outgoing.destroy());
    } else {
      passOn(incoming, outgoing).catch(() => outgoing.destroy());
    }
  });

  /** The Host header stays the client's: it is part of what the client has signed. */
  function ask({ method, url, headers }: IncomingMessage, body: IncomingMessage | Buffer): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const onward = request({ hostname, port, method, path: url, headers }, resolve);
      onward.on("error", reject);
      if (Buffer.isBuffer(body)) onward.end(body);
      else body.pipe(onward);
    });
  }

  async function passOn(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    body: IncomingMessage | Buffer = incoming,
  ) {
    const answer = await ask(incoming, body);
    outgoing.writeHead(answer.statusCode!, answer.headers);
    answer.on("error", () => outgoing.destroy()).pipe(outgoing);
  }

  async function refuse(incoming: IncomingMessage, outgoing: ServerResponse, status: number, code: string) {
    incoming.resume();
    const text = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>The proxy says so.</Message></Error>`;
    outgoing.writeHead(status, { "content-type": "application/xml" }).end(text);
  }

  const makeTrouble: Record<Trouble, (incoming: IncomingMessage, outgoing: ServerResponse) => Promise<void>> = {
    "500": (incoming, outgoing) => refuse(incoming, outgoing, 500, "InternalError"),
    "503": (incoming, outgoing) => refuse(incoming, outgoing, 503, "SlowDown"),
    reset: async ({ socket }) => void socket.resetAndDestroy(),
    lost: async (incoming) => {
      await buffer(await ask(incoming, incoming));
      incoming.socket.resetAndDestroy();
    },
    truncated: async (incoming, outgoing) => {
      const answer = await ask(incoming, incoming);
      const body = await buffer(answer);
      outgoing.writeHead(answer.statusCode!, answer.headers);
      outgoing.write(body.subarray(0, body.length >> 1), () => outgoing.destroy());
    },
    race: async (incoming, outgoing) => {
      const body = await buffer(incoming);
      await buffer(await ask(incoming, body));
      await passOn(incoming, outgoing, body);
    },
    silent: async () => {},
  };

  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const proxy: FlakyProxy = {
    endpoint: `http://${host}:${(server.address() as { port: number }).port}`,
    trouble: null,
    every: 1,
    holds: () => false,
    held: [],
    troubled: 0,
    requests: [],
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}

const anything = () => true;
const concerns: Record<Trouble, (request: IncomingMessage) => boolean> = {
  "500": anything,
  "503": anything,
  reset: anything,
  lost: anything,
  truncated: ({ method }) => method === "GET",
  race: ({ method, headers }) => method === "PUT" && ("if-match" in headers || "if-none-match" in headers),
  silent: anything,
};
