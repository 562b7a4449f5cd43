/** Images that crash the decoder or the engine, or hang it, on one machine: `capfleet run` starts its worker again by itself. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { orphans } from "../support/crashes.ts";
import { capfleet, DEMO, Sandbox } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";

vi.setConfig({ testTimeout: 400_000 });

let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await Sandbox.create();
});
afterAll(() => sandbox.cleanUp());

test("each poison image costs its own row and two workers; all other rows are right", async () => {
  const samples = (await readFile(join(DEMO, "samples.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { image: string; truth: { caption: string } });
  const records = 4 * samples.length;
  const sample = (n: number) => samples[n % samples.length]!;
  const line = (n: number) => JSON.stringify({ id: String(n), image: join(DEMO, sample(n).image) });
  await writeFile(sandbox.path("list.jsonl"), Array.from({ length: records }, (_, n) => line(n)).join("\n"));
  // One in the first shard, on the way to the engine; two in the third; one in the last that the engine never ends with.
  const faults = "worker.infer=abort:7,worker.decode=abort:40,worker.decode=kill:43,worker.infer=hang:60";
  const env = sandbox.env({ CAPFLEET_FAULTS: faults, CAPFLEET_MAX_RECORD_SECONDS: "2" });
  const options = ["--out", sandbox.path("out"), "--shard-size", "16", "--format", "webdataset"];
  const { code, stderr } = await capfleet(env, "run", "caption", sandbox.path("list.jsonl"), ...options);
  expect({ code, stderr }).toMatchObject({ code: 0 });

  const out = storesFromEnv({}).at(`${sandbox.path("out")}/`);
  const { rows, summary } = await expectWhole(out, records);
  const crashed = (what: string) => ({ code: "WORKER_CRASHED", message: what, retryable: false });
  const poison: Record<string, object> = {
    7: crashed("the process that ran the model on it died (SIGABRT)"),
    40: crashed("the process that decoded the image died (SIGABRT)"),
    43: crashed("the process that decoded the image died (SIGKILL)"),
    60: crashed("the process that ran the model on it took longer than 2 s"),
  };
  expect(rows.map(({ id, caption, error }) => [id, error ?? caption])).toEqual(
    rows.map((_, n) => [String(n), poison[n] ?? sample(n).truth.caption]),
  );
  expect(summary.errors).toEqual({ WORKER_CRASHED: 4 });
  expect(await orphans(out, rows)).toEqual([]);
});
