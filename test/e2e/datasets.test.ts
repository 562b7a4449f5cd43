/** What goes along with a dataset's records: fields of other names, fields that are kept, pictures that are in a tar. */
import { execFileSync } from "node:child_process";
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test } from "vitest";
import { capfleet, DEMO, Sandbox } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";

let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
let samples: { id: string; image: string; alt: string }[];

beforeAll(async () => {
  sandbox = await Sandbox.create();
  env = sandbox.env();
  const lines = (await readFile(join(DEMO, "samples.jsonl"), "utf8")).trimEnd().split("\n");
  samples = lines.slice(0, 6).map((line) => JSON.parse(line));
});
afterAll(() => sandbox.cleanUp());

async function rowsOf(name: string, task: string, input: string, ...options: string[]) {
  const out = sandbox.path(name);
  const { code, stderr } = await capfleet(env, "run", task, input, "--out", out, ...options);
  if (code !== 0) throw new Error(`exit code ${code}: ${stderr}`);
  return (await expectWhole(storesFromEnv({}).at(`${out}/`), samples.length)).rows;
}

test("a manifest's image and id may be in other fields; what is to be kept is in each row", async () => {
  const file = sandbox.path("other.jsonl");
  const lines = samples.map(({ id, image, alt }, price) => ({ sku: id, picture: join(DEMO, image), alt, price }));
  await writeFile(file, lines.map((line) => JSON.stringify(line)).join("\n"));
  const options = ["--image-column", "picture", "--id-column", "sku", "--keep", "alt", "--keep", "price"];
  const rows = await rowsOf("manifest", "caption", file, ...options);
  expect(rows.map(({ id, kept }) => [id, kept])).toEqual(samples.map(({ id, alt }, price) => [id, { alt, price }]));
});

test("a dataset in a tar is cleaned, and the report has the pictures that are in it", async () => {
  const stage = sandbox.path("stage");
  await mkdir(stage);
  for (const { id, image, alt } of samples) {
    await cp(join(DEMO, image), join(stage, `${id}${extname(image)}`));
    await writeFile(join(stage, `${id}.txt`), alt);
    await writeFile(join(stage, `${id}.json`), JSON.stringify({ url: `origin/${id}` }));
  }
  const tar = sandbox.path("web.tar");
  execFileSync("tar", ["--sort=name", "-cf", tar, "-C", stage, "."]);
  const rows = await rowsOf("cleaned", "capfilt", tar, "--text-column", "txt", "--keep", "url");
  expect(rows.map(({ pairs }) => pairs![0]!.text)).toEqual(samples.map(({ alt }) => alt));
  expect(rows.map(({ kept }) => kept)).toEqual(samples.map(({ id }) => ({ url: `origin/${id}` })));
  const report = await readFile(sandbox.path("cleaned/report.html"), "utf8");
  const shown = report.match(/<figure><img alt="" src="data:image/g)!.length;
  expect(shown).toBe(report.match(/<figure>/g)!.length);
  expect(shown).toBeGreaterThanOrEqual(samples.length);
});

test.each([
  ["samples.jsonl", ["--keep", "price"], /^MANIFEST_INVALID: .*`price`/m],
  ["samples.jsonl", ["--image-column", "url"], /^MANIFEST_INVALID: .*`url`/m],
  ["images", ["--id-column", "sku"], /^INVALID_OPTION: --id-column/m],
  ["images", ["--keep", "price"], /^INVALID_OPTION: --keep/m],
])("%s with %j is refused before anything is there", async (input, options, message) => {
  const out = sandbox.path("refused");
  const { code, stderr } = await capfleet(env, "run", "caption", join(DEMO, input), "--out", out, ...options);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
  await expect(readdir(out)).rejects.toMatchObject({ code: "ENOENT" });
});
