/**
 * A real web server with TLS on 127.0.0.1. Its certificate, for localhost, *.example.test and 127.0.0.1, signs itself and is
 * good from 2020 to 2119; the key beside it is for nothing else.
 */
import { readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";

const pathOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));
/** For NODE_EXTRA_CA_CERTS. */
export const CERTIFICATE = pathOf("localhost-cert.pem");
export const KEY = pathOf("localhost-key.pem");

export interface TlsServer {
  /** `https://localhost:port`; the port is the same for every other name of it. */
  origin: string;
  port: number;
  requests: IncomingMessage[];
  /** Connections so far. */
  connections: number;
  close(): Promise<void>;
}

/** `answer` gets each request and its number, from 0. */
export async function tlsServer(
  answer: (request: IncomingMessage, response: ServerResponse, number: number) => void,
): Promise<TlsServer> {
  const server = createServer({ cert: readFileSync(CERTIFICATE), key: readFileSync(KEY) });
  server.on("request", (request, response) => answer(request, response, started.requests.push(request) - 1));
  server.on("secureConnection", () => {
    started.connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const started: TlsServer = {
    origin: `https://localhost:${port}`,
    port,
    requests: [],
    connections: 0,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return started;
}
