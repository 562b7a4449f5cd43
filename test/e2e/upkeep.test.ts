/** What comes after a job: trying again, giving up on one that mostly fails, ending, deleting. With the real command line. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { layout, type ResultRow, type Summary } from "@capfleet/shared/contract";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { readSummary } from "../../packages/producer/src/jobs/status.ts";
import { command } from "../support/command.ts";
import { TestFleet } from "../support/fleet.ts";
import { capfleet, DEMO, Sandbox, until } from "../support/processes.ts";
import { expectWhole, readRows } from "../support/rows.ts";

const IMAGES = join(DEMO, "images");
const stores = storesFromEnv({});
let sandbox: Sandbox;
let fleet: TestFleet;
/** Of jobs that `capfleet run` makes. */
let env: NodeJS.ProcessEnv;
let tests = 0;
let out: string;
let store: Store;

beforeAll(async () => {
  sandbox = await Sandbox.create();
  fleet = await TestFleet.start(sandbox, ["demo-caption"]);
  env = sandbox.env({ CAPFLEET_STATE: sandbox.path("local") });
});
beforeEach(() => {
  out = sandbox.path(`out-${tests++}`);
  store = stores.at(`${out}/`);
});
afterAll(() => sandbox.cleanUp());

const whole = () => until("the job to finish", () => store.stat(layout.success));

/** Fails rows of a finished job as a model that fails does: there is no such model to be had. */
async function failRows(shard: number, ...which: number[]): Promise<void> {
  const rows = (await readFile(join(out, layout.result(shard)), "utf8")).trimEnd().split("\n");
  for (const i of which) {
    const { id, image } = JSON.parse(rows[i]!) as ResultRow;
    const error = { code: "INFERENCE_FAILED", message: "planted", retryable: true };
    rows[i] = JSON.stringify({ id, image, error });
  }
  await store.put(layout.result(shard), `${rows.join("\n")}\n`);
  const summary = (await readSummary(store))!;
  const errors = { ...summary.errors, INFERENCE_FAILED: (summary.errors.INFERENCE_FAILED ?? 0) + which.length };
  const failed = summary.failed + which.length;
  const counts = { succeeded: summary.rows - failed, failed, errors } satisfies Partial<Summary>;
  await store.put(layout.summary, JSON.stringify({ ...summary, ...counts }));
}

const contents = async () =>
  Object.fromEntries(
    (await Array.fromAsync(store.list({ prefix: layout.results }))).map(({ key, etag }) => [key, etag]),
  );

/** A manifest of images that are not there. */
async function missing(lines: number): Promise<string> {
  const file = sandbox.path("missing.jsonl");
  const all = Array.from({ length: lines }, (_, n) => `${JSON.stringify({ image: `nothing-${n}.jpg` })}\n`);
  await writeFile(file, all.join(""));
  return file;
}

test("retry does again what failed and may succeed, and touches no other shard", async () => {
  await fleet.finish("caption", IMAGES, "--out", out, "--shard-size", "8");
  const before = await readRows(store);
  expect((await command(fleet.env, "retry", out)).stdout).toMatch(/no rows that failed and may succeed/);
  await failRows(1, 0, 3);
  const planted = await contents();
  expect((await command(fleet.env, "retry", out)).stdout).toMatch(/^retrying job_.*: 2 rows$/m);
  await whole();
  const { rows, summary } = await expectWhole(store, 24);
  expect(rows).toEqual(before);
  expect(summary.retries).toBe(1);
  const after = await contents();
  const changed = Object.keys(after).filter((key) => after[key] !== planted[key]);
  expect(changed).toEqual([layout.result(1)]);
});

test("a retry that is killed goes on, and the job is not whole meanwhile", async () => {
  await capfleet(env, "run", "caption", IMAGES, "--out", out, "--shard-size", "1");
  const before = await readRows(store);
  for (let shard = 0; shard < 24; shard++) await failRows(shard, 0);
  const running = sandbox.capfleet(env, "retry", out);
  await until("a row to be there again", async () => (await readRows(store)).some(({ caption }) => caption));
  await running.kill("SIGKILL");
  const middle = await readRows(store);
  expect(middle.some(({ error }) => error)).toBe(true);
  expect(await store.stat(layout.success)).toBeNull();
  expect((await capfleet(env, "retry", out)).stderr).toMatch(/JOB_STATE/);
  expect((await capfleet(env, "resume", out)).code).toBe(0);
  expect((await expectWhole(store, 24)).rows).toEqual(before);
});

test("a job that mostly fails is stopped, says why, and goes on when it is asked to", async () => {
  const job = ["caption", await missing(6_000), "--out", out, "--shard-size", "100"];
  await expect(fleet.finish(...job)).rejects.toThrow(
    /^failed: TOO_MANY_ERRORS: (\d+) of \1 rows have failed, \1 of them with IMAGE_NOT_FOUND/,
  );
  const summary = (await readSummary(store))!;
  expect(summary.rows).toBeGreaterThanOrEqual(1_000);
  expect(summary.rows).toBeLessThan(6_000);
  expect(await store.stat(layout.success)).toBeNull();
  expect((await command(fleet.env, "retry", out, "--max-error-rate", "1")).code).toBe(0);
  await whole();
  expect((await expectWhole(store, 6_000)).summary.failed).toBe(6_000);
});

test("one with a limit of its own, or fewer than 1,000 rows, is not", async () => {
  await fleet.finish("caption", await missing(999), "--out", out, "--shard-size", "100");
  const other = ["--out", sandbox.path("other"), "--shard-size", "100", "--max-error-rate", "1"];
  await fleet.finish("caption", await missing(3_000), ...other);
});

test("delete takes all that a job wrote and nothing else; it asks first, and not for one that runs", async () => {
  await fleet.finish("caption", IMAGES, "--out", out, "--limit", "4");
  await writeFile(join(out, "notes.txt"), "mine");
  const asked = await capfleet(fleet.env, "delete", out);
  expect(asked.code).toBe(2);
  expect(asked.stderr).toMatch(/^NOT_CONFIRMED/m);
  await expectWhole(store, 4);
  const { code, stdout, stderr } = await capfleet(fleet.env, "delete", out, "--yes");
  expect(code).toBe(0);
  expect(stdout).toMatch(/^deleted job_/);
  expect(stderr).toMatch(/notes\.txt/);
  expect(await readdir(out)).toEqual(["notes.txt"]);
  expect((await capfleet(fleet.env, "status")).stdout).not.toContain(out);

  const running = sandbox.path("running");
  const job = sandbox.capfleet(env, "run", "caption", IMAGES, "--out", running, "--shard-size", "1");
  await until("the job to be there", () => stores.at(`${running}/`).stat(layout.job));
  await job.kill("SIGKILL");
  const refused = await capfleet(env, "delete", running, "--yes");
  expect(refused.stderr).toMatch(/^JOB_STATE: .*cancel/m);
  expect(refused.code).toBe(2);
});

test("a local job that nothing works on any more can be cancelled, and then deleted by its id", async () => {
  const running = sandbox.capfleet(env, "run", "caption", IMAGES, "--out", out, "--shard-size", "1");
  await until("a row", async () => (await readRows(store)).length > 0);
  await running.kill("SIGKILL");
  expect((await capfleet(env, "cancel", out)).code).toBe(0);
  const summary = (await readSummary(store))!;
  expect(summary).toMatchObject({ state: "cancelled", rows: (await readRows(store)).length });
  expect(summary.shards).toBeGreaterThan(0);
  expect((await capfleet(env, "delete", summary.id, "--yes")).code).toBe(0);
  expect(await Array.fromAsync(store.list())).toEqual([]);
});
