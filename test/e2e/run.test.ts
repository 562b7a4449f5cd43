/** `capfleet run` as a user types it: one machine, its own Redis and worker. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { command } from "../support/command.ts";
import { capfleet, DEMO, Sandbox, until } from "../support/processes.ts";
import { expectWhole, readRows } from "../support/rows.ts";

let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
const stores = storesFromEnv({});
const samples: { id: string; image: string; truth: { caption: string } }[] = [];

beforeAll(async () => {
  sandbox = await Sandbox.create();
  // 1 a second.
  env = sandbox.env({ CAPFLEET_PRICE_PER_HOUR: "3600" });
  const text = await readFile(join(DEMO, "samples.jsonl"), "utf8");
  samples.push(
    ...text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line)),
  );
});
afterAll(() => sandbox.cleanUp());

const at = (name: string) => sandbox.path(name);
const store = (name: string) => stores.at(`${at(name)}/`);

test("a manifest: its ids, every caption exactly right, scores that are log-probabilities, provenance", async () => {
  const { code, stdout, stderr } = await capfleet(
    env,
    "run",
    "caption",
    join(DEMO, "samples.jsonl"),
    "--out",
    at("all"),
  );
  expect({ code, stderr }).toMatchObject({ code: 0 });
  expect(stdout).toContain("finished: 24 rows labelled, 0 failed");
  const { rows, summary } = await expectWhole(store("all"), 24);
  expect(rows.map(({ id, caption }) => [id, caption])).toEqual(samples.map(({ id, truth }) => [id, truth.caption]));
  expect(rows.map(({ image }) => image)).toEqual(samples.map(({ image }) => pathToFileURL(join(DEMO, image)).href));
  for (const { score } of rows) expect(score).toBeLessThanOrEqual(0);
  const { spent, workerSeconds } = summary.cost!;
  expect(spent).toBeCloseTo(workerSeconds);
  expect(summary.work).toMatchObject({ rows: 24, untimed: 0 });
  expect(stdout).toMatch(/^cost {5}[\d.]+ \([\d.,]+ per 1,000; \d+ s of workers\)$/m);
  const { engines, capfleet: version, schema } = summary.provenance;
  const [engine] = engines;
  expect({ precision: engine!.precision, version, schema }).toEqual({ precision: "int8", version: "0.1.0", schema: 1 });
  expect(engine!.digest).toMatch(/^[0-9a-f]{16}$/);

  // Progress went to stderr as plain lines (this is no terminal), and nothing of it is control characters.
  expect(stderr).toMatch(/started job_.*\n/);
  expect(stderr).not.toContain("\u001b");
  expect(leftovers()).toEqual([]);

  // The same command again has nothing to do; another job may not take the place.
  const again = await capfleet(env, "run", "caption", join(DEMO, "samples.jsonl"), "--out", at("all"));
  expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining("already ended") });
  const other = await capfleet(env, "run", "caption", join(DEMO, "images"), "--out", at("all"));
  expect(other).toMatchObject({ code: 2, stderr: expect.stringMatching(/^OUTPUT_IN_USE/) });
});

describe("a folder", () => {
  test("ids are keys below it, in byte order; --limit, --shard-size and --max-new-tokens do what they say", async () => {
    const options = ["--limit", "5", "--shard-size", "2", "--max-new-tokens", "3"];
    const job = ["run", "caption", join(DEMO, "images"), "--out", at("five"), ...options];
    const { code, stderr } = await capfleet(env, ...job);
    expect(code).toBe(0);
    // By what the first job has measured.
    expect(stderr).toMatch(/^about \d+ s on 1 worker, about [\d.]+, going by 24 rows \(job_\w+, .*\) on cpu \(.+\)$/m);
    const { rows, summary } = await expectWhole(store("five"), 5);
    expect(rows.map(({ id }) => id)).toEqual(samples.slice(0, 5).map(({ image }) => image.replace("images/", "")));
    expect(summary.shards).toBe(3);
    for (const { caption } of rows) expect(caption!.split(" ").length).toBeLessThanOrEqual(3);
  });

  test("results and status of it, by location and by id", async () => {
    const results = await capfleet(env, "results", at("five"));
    expect(
      results.stdout
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line)),
    ).toEqual(await readRows(store("five")));
    expect(await capfleet(env, "results", at("five"), "--errors")).toMatchObject({ code: 0, stdout: "" });
    const status = JSON.parse((await capfleet(env, "status", at("five"), "--json")).stdout);
    expect(status).toMatchObject({
      state: "finished",
      total: 5,
      done: 5,
      failed: 0,
      task: "caption",
      model: "demo-caption",
    });
    const byId = await capfleet(env, "status", status.id);
    expect(byId.stdout).toMatch(/^ {2}cost {7}[\d.]+ \(/m);
    expect(byId.stdout).toContain("finished  5/5 (100%)");
    expect((await capfleet(env, "resume", status.id)).stderr).toMatch(/^JOB_STATE: .*finished/);
  });
});

test("plan: from what jobs have measured, or not at all", async () => {
  const planned = await command(env, "plan", join(DEMO, "samples.jsonl"), "--workers", "2", "--json");
  expect(planned).toMatchObject({ code: 0, stderr: "" });
  const { ratePerWorker: rate, cost, seconds, assumed, ...rest } = JSON.parse(planned.stdout);
  expect(rest).toMatchObject({ images: 24, workers: 2, pricePerHour: 3_600 });
  expect(seconds).toBeCloseTo(24 / rate / 2);
  expect(cost).toBeCloseTo(24 / rate);
  expect(assumed.join("\n")).toMatch(/29 rows \(2 jobs, the last job_\w+, .*\) on cpu/);
  const given = await command(env, "plan", "--images", "7200", "--rate", "2", "--price", "0.5");
  expect(given.stdout).toMatch(
    /^7,200 images: about 1 h 0 min on 1 worker\n.*2 images.*\n.*about 0\.5, 0\.069 per 1,000\n/,
  );
  for (const [code, ...args] of [
    ["RATE_UNKNOWN", "--images", "1", "--model", "nobody/has-run-it"],
    ["INVALID_OPTION", at("nowhere"), "--images", "1"],
  ] as const) {
    const refused = await command(env, "plan", ...args);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(`^${code}: `) });
  }
});

test("rows that fail do not fail the job: exit code 0, and the summary says how many and why", async () => {
  await mkdir(at("mixed"));
  await cp(join(DEMO, "images/scene-003.jpg"), at("mixed/good.jpg"));
  await writeFile(at("mixed/bad.jpg"), "this is not an image");
  await writeFile(
    at("mixed/list.jsonl"),
    '{"id":"g","image":"good.jpg"}\n{"id":"b","image":"bad.jpg"}\n{"id":"m","image":"gone.jpg"}\n',
  );
  const { code, stdout } = await capfleet(env, "run", "caption", at("mixed/list.jsonl"), "--out", at("mixed-out"));
  expect(code).toBe(0);
  expect(stdout).toContain("1 row labelled, 2 failed");
  expect(stdout).toContain("1 row failed with IMAGE_UNREADABLE");
  const { rows } = await expectWhole(store("mixed-out"), 3);
  expect(rows.map(({ id, error }) => [id, error?.code])).toEqual([
    ["g", undefined],
    ["b", "IMAGE_UNREADABLE"],
    ["m", "IMAGE_NOT_FOUND"],
  ]);
  const errors = await capfleet(env, "results", at("mixed-out"), "--errors");
  expect(errors.stdout.trimEnd().split("\n")).toHaveLength(2);
});

test("Ctrl-C stops in good order, says how to go on, and resume does; nothing is left running", async () => {
  const lines = Array.from({ length: 1_200 }, (_, n) =>
    JSON.stringify({ id: String(n), image: samples[n % 24]!.image }),
  );
  await mkdir(at("many"));
  await cp(join(DEMO, "images"), at("many/images"), { recursive: true });
  await writeFile(at("many/list.jsonl"), lines.join("\n"));
  const job = ["run", "caption", at("many/list.jsonl"), "--out", at("many-out"), "--shard-size", "100"];
  const running = sandbox.capfleet(env, ...job);
  await until("the first commit", () => store("many-out").stat("results/000000.jsonl"));
  await running.kill("SIGINT");
  expect(await running.ended()).toBe(130);
  expect(running.stderr).toMatch(/^INTERRUPTED: .*capfleet resume job_/m);
  expect(leftovers()).toEqual([]);
  expect(await store("many-out").stat("_SUCCESS")).toBeNull();

  const resumed = await capfleet(env, "resume", at("many-out"));
  expect(resumed).toMatchObject({ code: 0, stdout: expect.stringContaining("finished: 1,200 rows labelled") });
  const { rows } = await expectWhole(store("many-out"), 1_200);
  expect(rows.map(({ caption }) => caption)).toEqual(lines.map((_, n) => samples[n % 24]!.truth.caption));
});

test("killed without a chance to stop, `run` leaves neither its worker nor its Redis behind", async () => {
  const job = ["run", "caption", at("many/list.jsonl"), "--out", at("killed-out"), "--shard-size", "100"];
  const running = sandbox.capfleet(env, ...job);
  await until("the first commit", () => store("killed-out").stat("results/000000.jsonl"));
  expect(leftovers().length).toBeGreaterThan(0);
  await running.kill("SIGKILL");
  await until("its children to go", () => leftovers().length === 0, 20);
  const again = await capfleet(env, ...job);
  expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining("going on with") });
  await expectWhole(store("killed-out"), 1_200);
});

test("doctor tries each part", async () => {
  const good = await capfleet(env, "doctor", at("doctored"));
  expect(good).toMatchObject({ code: 0, stdout: expect.stringMatching(/ok {4}storage .*conditional write/) });
  const bad = await capfleet(env, "doctor", "--model", "nothing", "--json");
  expect(bad.code).toBe(1);
  const failed = JSON.parse(bad.stdout).filter(({ ok }: { ok: boolean }) => !ok);
  expect(failed).toMatchObject([{ part: "model", found: expect.stringMatching(/^MODEL_NOT_FOUND/) }]);
});

test("`npx capfleet` works where the shell's node is another", () => {
  const shell = {
    ...env,
    PATH: (process.env.PATH ?? "")
      .split(":")
      .filter((dir) => !dir.includes("node_modules"))
      .join(":"),
  };
  const root = join(DEMO, "../..");
  expect(execFileSync(join(root, "node_modules/.bin/capfleet"), ["--version"], { env: shell, encoding: "utf8" })).toBe(
    "0.1.0\n",
  );
  const direct = execFileSync("node", [join(root, "packages/producer/bin/capfleet.mjs"), "--version"], {
    env: shell,
    encoding: "utf8",
  });
  expect(direct).toBe("0.1.0\n");
});

/** Processes of this test's runs that are still there: they carry its state root in their environment. */
function leftovers(): string[] {
  const read = (file: string) => {
    try {
      return readFileSync(file, "utf8").split("\0");
    } catch {
      return []; // It has just ended.
    }
  };
  const mine = readdirSync("/proc").filter((pid) =>
    read(`/proc/${pid}/environ`).includes(`CAPFLEET_STATE=${at("state")}`),
  );
  return mine.map((pid) => read(`/proc/${pid}/cmdline`).join(" ")).filter((line) => /redis|valkey|worker/.test(line));
}
