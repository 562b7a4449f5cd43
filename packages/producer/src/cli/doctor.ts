/** `capfleet doctor`: each part that a job needs, tried for real, and what to do about what does not work. */
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { availableParallelism, cpus, totalmem } from "node:os";
import { promisify } from "node:util";
import { asCapfleetError, CapfleetError } from "@capfleet/shared/contract";
import { findModel } from "@capfleet/shared/models";
import { checkRedis, liveWorkers, redisAddress } from "@capfleet/shared/queues";
import { normalizeUri, probeConditionalWrites, type Store } from "@capfleet/shared/storage";
import { findServer } from "../local/redis.ts";
import { type Context, optionalRedis } from "./context.ts";
import { showingDownload } from "./progress.ts";

interface Finding {
  part: string;
  ok: boolean;
  found: string;
  fix?: string;
}

export interface DoctorRequest {
  model: string;
  /** Further locations to read and write. */
  locations: string[];
  json: boolean;
}

/** Returns false where something does not work. */
export async function doctor({ model, locations, json }: DoctorRequest, context: Context): Promise<boolean> {
  const findings: Finding[] = [];
  const attempt = async (part: string, look: () => Promise<string>) => {
    const finding = await look().then(
      (found): Finding => ({ part, ok: true, found }),
      (thrown: unknown): Finding => {
        const { code, message, fix } = asCapfleetError(thrown);
        return { part, ok: false, found: `${code}: ${message}`, fix };
      },
    );
    findings.push(finding);
    if (json) return;
    const { ok, found, fix } = finding;
    process.stdout.write(
      `${ok ? "ok  " : "FAIL"}  ${part.padEnd(10)} ${found}\n${fix ? `                 → ${fix}\n` : ""}`,
    );
  };

  await attempt("node", async () => `${process.version} on ${process.platform}-${process.arch}`);
  await attempt("redis", () => redis(context));
  await attempt("state", () => storage(context.state));
  for (const location of locations) {
    await attempt("storage", async () => storage(context.stores.at(normalizeUri(`${location.replace(/\/$/, "")}/`))));
  }
  await attempt("model", async () => {
    const { ref, tasks, folder } = await showingDownload(context.stores, (fetching) =>
      findModel(model, null, context.state, context.config, fetching),
    );
    const where = folder ?? "registered by a worker";
    return `${ref.model} (${tasks.join(", ")}) as ${ref.precision}, engine ${ref.digest}, ${where}`;
  });
  await attempt("cpu", async () => {
    const gib = (totalmem() / 2 ** 30).toFixed(0);
    return `${availableParallelism()} cores (${cpus()[0]?.model.trim() ?? "unknown"}), ${gib} GiB of memory`;
  });
  await attempt("gpu", gpu);
  if (json) process.stdout.write(`${JSON.stringify(findings)}\n`);
  return findings.every(({ ok }) => ok);
}

async function redis(context: Context): Promise<string> {
  const { redisUrl } = context.config;
  if (!redisUrl) return `CAPFLEET_REDIS_URL is not set; \`capfleet run\` will start ${await findServer()}`;
  const { version, policy } = await checkRedis(redisUrl);
  const connection = optionalRedis(context)!;
  const workers = await liveWorkers(connection).finally(() => connection.disconnect());
  return `${redisAddress(redisUrl)}, version ${version}, ${policy ?? "eviction policy hidden"}, ${workers.length} live workers`;
}

async function storage(store: Store): Promise<string> {
  const key = `.capfleet-doctor-${randomUUID()}`;
  try {
    await store.put(key, key);
    const { bytes } = await store.read(key);
    if (bytes.toString() !== key) throw new CapfleetError("STORE_UNAVAILABLE", `${store.uri} gives back other bytes`);
  } finally {
    await store.delete(key);
  }
  const conditional = (await probeConditionalWrites(store))
    ? "conditional write"
    : "no conditional write: the last writer wins";
  return `${store.uri}: read, write, ${conditional}`;
}

/** What there is; whether ONNX Runtime can use it, a worker that is started on it says. */
async function gpu(): Promise<string> {
  const query = ["--query-gpu=name,memory.total", "--format=csv,noheader"];
  const found = await promisify(execFile)("nvidia-smi", query, { timeout: 10_000 }).then(
    ({ stdout }) => stdout.trim().split("\n").join("; "),
    () => null,
  );
  return found ? `${found}; used with --device cuda` : "none; the CPU is used";
}
