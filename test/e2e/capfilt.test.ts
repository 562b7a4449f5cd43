/** Cleaning a dataset, from the command line to its rows and its report, with the bundled models. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Pair, ResultRow } from "@capfleet/shared/contract";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestFleet } from "../support/fleet.ts";
import { capfleet, DEMO, Sandbox, until } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";

interface Sample {
  id: string;
  image: string;
  alt: string;
  truth: { caption: string; alt_matches: boolean };
}

let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
let samples: Sample[];
let fleet: TestFleet;
const stores = storesFromEnv({});
const manifest = join(DEMO, "samples.jsonl");
const images = join(DEMO, "images");

const jsonLines = <T>(text: string): T[] => {
  const lines = text.trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as T);
};

beforeAll(async () => {
  sandbox = await Sandbox.create();
  env = sandbox.env();
  samples = jsonLines<Sample>(await readFile(manifest, "utf8"));
  fleet = await TestFleet.start(sandbox, ["demo-caption", "demo-itm"], ["--precision", "int8"]);
});
afterAll(() => sandbox.cleanUp());

/** By the fleet, in int8. */
async function clean(name: string, ...args: string[]): Promise<string> {
  const out = sandbox.path(name);
  await fleet.finish(...args, "--out", out);
  return out;
}

const rowsIn = async (out: string, records: number) => (await expectWhole(stores.at(`${out}/`), records)).rows;
const of = (row: ResultRow, origin: Pair["origin"]) => row.pairs!.filter((pair) => pair.origin === origin);

/** Of the texts that are kept, those that match; of those that match, those that are kept. */
function quality(rows: readonly ResultRow[]) {
  const kept = rows.map((row) => of(row, "web")[0]!.kept);
  const right = samples.filter(({ truth }, i) => kept[i] && truth.alt_matches).length;
  const matching = samples.filter(({ truth }) => truth.alt_matches).length;
  return { precision: right / kept.filter(Boolean).length, recall: right / matching };
}

test("capfilt: wrong web texts are dropped, right ones and captions kept; fp32 and int8", async () => {
  for (const precision of ["fp32", "int8"]) {
    const args = ["run", "capfilt", manifest, "--text-column", "alt", "--num-captions", "3", "--precision", precision];
    const out = sandbox.path(`capfilt-${precision}`);
    const { code, stdout } = await capfleet(env, ...args, "--out", out);
    expect(code).toBe(0);
    const rows = await rowsIn(out, 24);
    const { precision: share, recall } = quality(rows);
    expect(share).toBeGreaterThanOrEqual(0.9);
    expect(recall).toBeGreaterThanOrEqual(0.9);
    for (const [i, row] of rows.entries()) {
      const [web] = of(row, "web");
      expect(web!.text).toBe(samples[i]!.alt);
      expect(web!.kept).toBe(web!.itm >= 0.5);
      // Captions that differ from the web's text; at the demo's certainty they are one at most.
      const texts = of(row, "synthetic").map(({ text }) => text);
      expect(new Set([...texts, web!.text]).size).toBe(texts.length + 1);
      expect(row.pairs!.map(({ text }) => text)).toContain(samples[i]!.truth.caption);
    }
    const { pairs } = JSON.parse(await readFile(join(out, "summary.json"), "utf8"));
    const kept = rows.flatMap((row) => row.pairs!).filter((pair) => pair.kept);
    expect(pairs.web.kept + pairs.synthetic.kept).toBe(kept.length);
    expect(stdout).toContain(`texts    kept: ${pairs.web.kept} of 24 of the dataset`);

    const printed = await capfleet(env, "results", out, "--kept");
    const wanted = rows.flatMap(({ id, image, pairs }) =>
      pairs!.flatMap(({ text, origin, itm, kept }) => (kept ? [{ id, image, text, origin, itm }] : [])),
    );
    expect(jsonLines(printed.stdout)).toEqual(wanted);
  }
});

test("filter alone judges the dataset's texts, by a threshold of one's own", async () => {
  const out = await clean("filter", "filter", manifest, "--text-column", "alt", "--threshold", "0.99");
  const rows = await rowsIn(out, 24);
  expect(rows.flatMap((row) => of(row, "synthetic"))).toEqual([]);
  for (const row of rows) for (const { itm, kept } of row.pairs!) expect(kept).toBe(itm >= 0.99);
});

test("a record without a text gets captions; a folder of images has nothing but these", async () => {
  const file = sandbox.path("sparse.jsonl");
  const lines = samples.slice(0, 3).map(({ image, alt }, i) => ({ image: join(DEMO, image), ...(i > 0 && { alt }) }));
  await writeFile(file, lines.map((line) => JSON.stringify(line)).join("\n"));
  const sparse = await rowsIn(await clean("sparse", "capfilt", file, "--text-column", "alt"), 3);
  expect(sparse.map((row) => of(row, "web").length)).toEqual([0, 1, 1]);
  expect(of(sparse[0]!, "synthetic")).toHaveLength(1);
  const all = await rowsIn(await clean("folder", "capfilt", images, "--limit", "4"), 4);
  for (const row of all) expect(row.pairs!.map(({ origin }) => origin)).toEqual(["synthetic"]);
});

test("the report shows counts, a histogram and examples with pictures, and no text can break out of it", async () => {
  const hostile = '</figcaption><script>alert("x")</script>';
  const file = sandbox.path("hostile.jsonl");
  const lines = samples.map(({ image, alt }, i) => ({ image: join(DEMO, image), alt: i === 0 ? hostile : alt }));
  await writeFile(file, lines.map((line) => JSON.stringify(line)).join("\n"));
  const out = await clean("report", "capfilt", file, "--text-column", "alt");
  const page = await readFile(join(out, "report.html"), "utf8");
  expect(page).not.toContain("<script");
  expect(page).toContain("&#60;script&#62;");
  expect(page).not.toMatch(/https?:\/\//);
  expect(page.match(/<img alt="" src="data:image\/jpeg;base64,/g)!.length).toBeGreaterThan(20);
  expect(page.match(/<h2>/g)).toHaveLength(2);
});

test.each([
  [["--captioner", "demo-itm"], /^TASK_UNSUPPORTED: model demo-itm can't do "caption"/m],
  [["--filter", "demo-caption"], /^TASK_UNSUPPORTED: model demo-caption can't do "itm"/m],
  [["--model", "demo-caption"], /^INVALID_OPTION: --model/m],
  [["--threshold", "1.5"], /threshold/],
])("capfilt with %j is refused before anything is there", async (options, message) => {
  const out = sandbox.path("refused");
  const { code, stderr } = await capfleet(
    env,
    "submit",
    "capfilt",
    manifest,
    "--text-column",
    "alt",
    "--out",
    out,
    ...options,
  );
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
  await expect(readFile(join(out, "job.json"))).rejects.toMatchObject({ code: "ENOENT" });
});

test("a job with two models that is killed goes on with both", async () => {
  const out = sandbox.path("killed");
  const args = ["run", "capfilt", manifest, "--text-column", "alt", "--shard-size", "2", "--out", out];
  const running = sandbox.capfleet(env, ...args);
  const store = stores.at(`${out}/`);
  await until(
    "a shard is committed",
    async () => (await Array.fromAsync(store.list({ prefix: "results/" }))).length > 0,
  );
  await running.kill("SIGKILL");
  const { code, stderr } = await capfleet(env, "resume", out);
  expect({ code, stderr }).toMatchObject({ code: 0 });
  expect(quality(await rowsIn(out, 24)).recall).toBeGreaterThanOrEqual(0.9);
});

test("a fleet: the job waits for a worker that runs both models, says so, and is done by it", async () => {
  const redis = await sandbox.redis();
  const own = sandbox.env({ CAPFLEET_REDIS_URL: redis.url, CAPFLEET_STATE: sandbox.path("waiting") });
  const out = sandbox.path("in-the-fleet");
  const args = ["submit", "capfilt", manifest, "--text-column", "alt", "--out", out, "--precision", "int8"];
  const { code, stderr } = await capfleet(own, ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  sandbox.producer(own);
  // Its --models is the captioner.
  const one = sandbox.worker(own);
  const waiting = () =>
    capfleet(own, "status", out).then(({ stdout }) => /no worker for demo-itm/.test(stdout) || null);
  await until("the job to wait for the filter", waiting);
  const other = sandbox.worker(own, "--models", "demo-itm");
  const apart = () =>
    capfleet(own, "status", out).then(({ stdout }) => /runs both demo-caption and demo-itm/.test(stdout) || null);
  await until("the job to wait for both together", apart);
  await one.kill("SIGTERM");
  await other.kill("SIGTERM");
  sandbox.worker(own, "--models", "demo-caption,demo-itm");
  await until("the job to finish", () => stores.at(`${out}/`).stat("_SUCCESS"));
  expect(quality(await rowsIn(out, 24)).precision).toBeGreaterThanOrEqual(0.9);
});
