/**
 * A real S3 server for tests, on free ports: Ceph's RADOS Gateway (see ceph.sh), ready in about a second. It ends with the
 * process that started it, however that ends. CAPFLEET_TEST_S3_ENDPOINT, CAPFLEET_TEST_S3_ACCESS_KEY and
 * CAPFLEET_TEST_S3_SECRET_KEY name another server to use instead.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export interface S3Server {
  endpoint: string;
  accessKeyId: string;
  secretAccessKey: string;
}
/** `other`, `third`: the keys of users who own nothing; null where only one is known. Their names are theirs in policies. */
export type RunningS3 = S3Server & { other: Keys | null; third: Keys | null; stop(): Promise<void> };
export type Keys = Pick<S3Server, "accessKeyId" | "secretAccessKey">;

const PROGRAMS = ["radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "setpriv"];
const START_MS = 120_000;

/** A running server, or why there is none. Fails where the programs are there and don't work. */
export async function startS3(): Promise<RunningS3 | { skipped: string }> {
  const endpoint = process.env.CAPFLEET_TEST_S3_ENDPOINT;
  if (endpoint) {
    const accessKeyId = process.env.CAPFLEET_TEST_S3_ACCESS_KEY;
    const secretAccessKey = process.env.CAPFLEET_TEST_S3_SECRET_KEY;
    if (!accessKeyId || !secretAccessKey)
      throw new Error(
        "CAPFLEET_TEST_S3_ENDPOINT needs CAPFLEET_TEST_S3_ACCESS_KEY and CAPFLEET_TEST_S3_SECRET_KEY beside it",
      );
    return { endpoint, accessKeyId, secretAccessKey, other: null, third: null, stop: async () => {} };
  }
  const missing = PROGRAMS.filter((name) => !onPath(name));
  if (missing.length > 0)
    return {
      skipped: `no S3 server: ${missing.join(", ")} not found. As root: apt-get install radosgw ceph-mon ceph-osd ceph-common; or set CAPFLEET_TEST_S3_ENDPOINT`,
    };
  return startCeph();
}

async function startCeph(): Promise<RunningS3> {
  const [accessKeyId, secretAccessKey] = ["test-access-key", "test-secret-key"];
  const [gateway, monitor] = await freePorts();
  const dir = await mkdtemp(join(tmpdir(), "capfleet-s3-"));
  const script = fileURLToPath(new URL("ceph.sh", import.meta.url));
  const args = [script, dir, String(gateway), String(monitor), accessKeyId, secretAccessKey];
  // Its own process group, so that Ctrl-C in the terminal reaches the tests first and the server through its stdin.
  const child = spawn("bash", args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  child.stdin.on("error", () => {}); // it has ended by itself: `ended` tells
  const stop = async () => {
    child.stdin.end();
    await ended;
    await rm(dir, { recursive: true, force: true });
  };

  const ready = new Promise<boolean>((resolve) => {
    createInterface({ input: child.stdout }).once("line", (line) => resolve(line === "ready"));
    void ended.then(() => resolve(false));
  });
  const timer = setTimeout(() => child.kill("SIGTERM"), START_MS);
  const isReady = await ready;
  clearTimeout(timer);
  if (!isReady) {
    await stop();
    throw new Error(`the S3 server did not start: ${said.trim() || "it ended without a word"}`);
  }
  const [other, third] = ["other", "third"].map((name) => {
    return { accessKeyId: `${name}-${accessKeyId}`, secretAccessKey: `${name}-${secretAccessKey}` };
  }) as [Keys, Keys];
  return { endpoint: `http://127.0.0.1:${gateway}`, accessKeyId, secretAccessKey, other, third, stop };
}

/** Two ports that nobody listens on. Both are held until both are known, so that they differ. */
async function freePorts(): Promise<[number, number]> {
  const servers = [createServer(), createServer()] as const;
  for (const server of servers) await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const [first, second] = servers.map((server) => (server.address() as AddressInfo).port);
  for (const server of servers) await new Promise((resolve) => server.close(resolve));
  return [first!, second!];
}

function onPath(program: string): boolean {
  return (process.env.PATH ?? "").split(delimiter).some((dir) => dir !== "" && existsSync(join(dir, program)));
}
