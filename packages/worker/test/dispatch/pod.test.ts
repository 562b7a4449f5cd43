/** Against a fake of the Kubernetes API, over real TLS: it takes the one request that a worker makes, and nothing else. */
import { copyFile, writeFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { createLog } from "@capfleet/shared/log";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Sandbox, until } from "../../../../test/support/processes.ts";
import { CERTIFICATE, type TlsServer, tlsServer } from "../../../../test/support/tls/server.ts";
import { type Pod, podOf, tellDeletionCost } from "../../src/dispatch/pod.ts";

interface Asked {
  line: string;
  token: string | undefined;
  type: string | undefined;
  cost: string;
}

let sandbox: Sandbox;
let server: TlsServer;
let pod: Pod;
let asked: Asked[];
let status: number;
let stop: AbortController;
let ended: Promise<void>;
let rows: number;
let looks: number;

beforeEach(async () => {
  [asked, status, rows, looks] = [[], 200, 0, 0];
  sandbox = await Sandbox.create();
  server = await tlsServer(async (request, response) => {
    const { method, url, headers } = request;
    const said = JSON.parse(await text(request));
    const cost = said.metadata.annotations["controller.kubernetes.io/pod-deletion-cost"];
    asked.push({ line: `${method} ${url}`, token: headers.authorization, type: headers["content-type"], cost });
    response.writeHead(status, { "content-type": "application/json" }).end("{}");
  });
  await copyFile(CERTIFICATE, sandbox.path("ca.crt"));
  await writeFile(sandbox.path("token"), "first\n");
  const env = { CAPFLEET_POD_NAME: "worker-1", CAPFLEET_POD_NAMESPACE: "labels" };
  const service = { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(server.port) };
  pod = podOf({ ...env, ...service }, sandbox.folder)!;
});
afterEach(async () => {
  stop.abort();
  await ended;
  await server.close();
  await sandbox.cleanUp();
});

function tell(): void {
  stop = new AbortController();
  const count = () => {
    looks += 1;
    return rows;
  };
  const log = createLog("test", "silent");
  ended = tellDeletionCost(pod, { rows: count, log, signal: stop.signal, everyMs: 5 });
}
const told = (times: number) => until(`${times} requests`, () => asked.length >= times);
const looked = async (times = 3) => {
  const before = looks;
  await until("it to look again", () => looks >= before + times);
};

test("the pod's own annotation follows the rows, with the token as it is at the time", async () => {
  rows = 40;
  tell();
  await told(1);
  await writeFile(sandbox.path("token"), "second\n");
  rows = 100;
  await told(2);
  // Too little to be worth a request.
  rows = 101;
  await looked();
  rows = 0;
  await told(3);
  const line = "PATCH /api/v1/namespaces/labels/pods/worker-1";
  const type = "application/merge-patch+json";
  expect(asked).toEqual([
    { line, type, token: "Bearer first", cost: "40" },
    { line, type, token: "Bearer second", cost: "100" },
    { line, type, token: "Bearer second", cost: "0" },
  ]);
  // Nothing has changed since.
  await looked();
  expect(asked).toHaveLength(3);
});

test("a refusal is asked again until it is taken", async () => {
  [status, rows] = [403, 7];
  tell();
  await told(2);
  status = 200;
  const before = asked.length;
  await told(before + 1);
  await looked();
  await until("an end to the requests", async () => {
    const now = asked.length;
    await looked();
    return asked.length === now;
  });
  expect(new Set(asked.map(({ cost }) => cost))).toEqual(new Set(["7"]));
});

test("no service account, or a server that its authority does not vouch for: it only can't be told", async () => {
  rows = 7;
  pod = { ...pod, serviceAccount: sandbox.path("none") };
  tell();
  await looked();
  stop.abort();
  await ended;
  const other = await tlsServer(() => {});
  await writeFile(sandbox.path("ca.crt"), "");
  pod = { ...pod, serviceAccount: sandbox.folder, port: other.port };
  tell();
  await looked();
  expect([asked.length, other.requests.length]).toEqual([0, 0]);
  await other.close();
});

test("outside of a pod there is nobody to tell", () => {
  stop = new AbortController();
  ended = Promise.resolve();
  expect(podOf({ CAPFLEET_POD_NAME: "worker-1", CAPFLEET_POD_NAMESPACE: "labels" })).toBeNull();
  expect(podOf({ KUBERNETES_SERVICE_HOST: "10.0.0.1", KUBERNETES_SERVICE_PORT: "443" })).toBeNull();
});
