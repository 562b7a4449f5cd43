/**
 * `npm run demo`: captions the sample images with the bundled checkpoint through `capfleet run`, exactly as a user
 * would, then shows what came out beside what is in the pictures.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import type { ResultRow } from "@capfleet/shared/contract";
import { galleryPage, type Pictured } from "./gallery.ts";

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const root = here("../../");
const output = `${root}demo-output/`;
const manifest = here("samples.jsonl");

interface Sample {
  id: string;
  image: string;
  truth: { caption: string };
}

await rm(output, { recursive: true, force: true });
const exitCode = await runCapfleet();
if (exitCode !== 0) process.exit(exitCode);
const pictured = readResults();
printTable(pictured);
await writeFile(`${output}gallery.html`, await galleryPage(pictured));
console.log(`
job output   demo-output/job/      (results/, summary.json)
pictures     demo-output/gallery.html
next         npx capfleet run caption <folder or s3://…> --out <folder or s3://…> --model <BLIP checkpoint folder>`);

function runCapfleet(): Promise<number> {
  const args = [`${root}packages/producer/bin/capfleet.mjs`, "run", "caption", manifest, "--out", `${output}job`];
  const env = { ...process.env, CAPFLEET_STATE: `${output}state` };
  const child = spawn(process.execPath, [...args, "--model", "demo-caption"], { stdio: "inherit", env });
  // Ctrl-C reaches the child as well; it stops in good order, and this process waits for that.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
  });
}

function readResults(): Pictured[] {
  const lines = (file: string) => readFileSync(file, "utf8").trimEnd().split("\n");
  const samples = new Map(lines(manifest).map((line) => [(JSON.parse(line) as Sample).id, JSON.parse(line) as Sample]));
  return resultFiles()
    .flatMap(lines)
    .map((line) => {
      const row = JSON.parse(line) as ResultRow;
      const sample = samples.get(row.id)!;
      const caption = row.caption ?? `${row.error!.code}: ${row.error!.message}`;
      return { ...row, file: here(sample.image), name: sample.image, caption, truth: sample.truth.caption };
    });
}

function resultFiles(): string[] {
  const { shards } = JSON.parse(readFileSync(`${output}job/summary.json`, "utf8")) as { shards: number };
  return Array.from({ length: shards }, (_, n) => `${output}job/results/${String(n).padStart(6, "0")}.jsonl`);
}

function printTable(rows: Pictured[]): void {
  const width = Math.max(...rows.map(({ name }) => name.length));
  console.log("");
  for (const { name, caption, truth } of rows) {
    console.log(`${name.padEnd(width)}  ${caption}${caption === truth ? "" : `   (in the picture: ${truth})`}`);
  }
  const right = rows.filter(({ caption, truth }) => caption === truth).length;
  console.log(`\n${right} of ${rows.length} captions are exactly right`);
}
