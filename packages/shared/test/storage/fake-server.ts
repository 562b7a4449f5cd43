/** A web server that answers as a test says: for what a real S3 server won't do on demand. It keeps no objects. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type Store, type StoreConfig, Stores } from "../../src/storage/index.ts";

export interface FakeServer {
  /** A store whose bucket is on this server. */
  store: Store;
  /** The requests so far. */
  requests: { method: string; url: string; headers: IncomingMessage["headers"] }[];
  close(): Promise<void>;
}

/** `answer` gets each request, its body read, and the request's number from 0. */
export async function fakeServer(
  answer: (request: IncomingMessage, response: ServerResponse, number: number) => void,
  config: Partial<StoreConfig> = {},
): Promise<FakeServer> {
  const requests: FakeServer["requests"] = [];
  const server = createServer((request, response) => {
    const number = requests.push({ method: request.method!, url: request.url!, headers: request.headers }) - 1;
    request.resume().once("end", () => answer(request, response, number));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const stores = new Stores([
    { prefix: "s3://bucket/", endpoint, accessKeyId: "key", secretAccessKey: "secret", timeoutMs: 5000, ...config },
  ]);
  return {
    store: stores.at("s3://bucket/"),
    requests,
    async close() {
      stores.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** S3's XML for an error. */
export function refuse(response: ServerResponse, status: number, code: string, message = "because"): void {
  response.writeHead(status, { "content-type": "application/xml" });
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`);
}
