/**
 * A fake in front of a real S3 server: passes everything on, or answers 503 as an overloaded store does, or lets requests
 * wait. A real server can't be told to.
 */
import { createServer, request } from "node:http";

const SLOW_DOWN =
  '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>';

export interface FlakyProxy {
  endpoint: string;
  /** While true every request is answered with 503. */
  failing: boolean;
  /** Requests that it is true for get no answer and do nothing. */
  holds: (method: string, path: string) => boolean;
  /** What has been held, as method and path. */
  held: string[];
  /** Requests that were answered with 503. */
  refused: number;
  /** Method and path of every request, in the order in which they came. */
  requests: string[];
  close(): Promise<void>;
}

export async function flakyProxy(target: string): Promise<FlakyProxy> {
  const { hostname, port } = new URL(target);
  const server = createServer((incoming, outgoing) => {
    proxy.requests.push(`${incoming.method} ${incoming.url}`);
    if (proxy.failing) {
      proxy.refused += 1;
      incoming.resume();
      outgoing.writeHead(503, { "content-type": "application/xml" }).end(SLOW_DOWN);
      return;
    }
    const what = [incoming.method!, decodeURI(incoming.url!)] as const;
    if (proxy.holds(...what)) {
      proxy.held.push(what.join(" "));
      return;
    }
    // The Host header stays the client's: it is part of what the client has signed.
    const { method, url, headers } = incoming;
    const onward = request({ hostname, port, method, path: url, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on("error", () => outgoing.destroy());
    incoming.pipe(onward);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy: FlakyProxy = {
    endpoint: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    failing: false,
    holds: () => false,
    held: [],
    refused: 0,
    requests: [],
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}
