/**
 * `npm run demo`: captions the sample images, answers a question about each and says how well a web text fits it, with
 * the bundled checkpoints through `capfleet run`, exactly as a user would. Then it shows what came out beside what is in
 * the pictures.
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

/** Where each job's output goes, and what is asked for. */
const JOBS = {
  captions: ["caption"],
  answers: ["vqa", "--question-column", "question"],
  matches: ["itm", "--text-column", "alt"],
};

interface Sample {
  id: string;
  image: string;
  alt: string;
  question: string;
  truth: { caption: string; alt_matches: boolean; answer: string };
}

let running: ReturnType<typeof spawn> | null = null;
// Ctrl-C reaches the child as well; it stops in good order, and this process waits for that.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => running?.kill("SIGTERM"));

await rm(output, { recursive: true, force: true });
for (const [folder, [task, ...options]] of Object.entries(JOBS)) {
  const exitCode = await runCapfleet(task!, manifest, "--out", `${output}${folder}`, ...options);
  if (exitCode !== 0) process.exit(exitCode);
  console.log("");
}
const pictured = readResults();
printTable(pictured);
await writeFile(`${output}gallery.html`, await galleryPage(pictured));
console.log(`
job outputs  demo-output/{captions,answers,matches}/      (results/, summary.json)
pictures     demo-output/gallery.html
next         npx capfleet run caption <folder or s3://…> --out <folder or s3://…> --model <checkpoint folder or hub id>`);

function runCapfleet(...args: string[]): Promise<number> {
  const env = { ...process.env, CAPFLEET_STATE: `${output}state` };
  const cli = `${root}packages/producer/bin/capfleet.mjs`;
  const child = spawn(process.execPath, [cli, "run", ...args], { stdio: "inherit", env });
  running = child;
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
  });
}

function readResults(): Pictured[] {
  const samples = lines(manifest).map((line) => JSON.parse(line) as Sample);
  const [captions, answers, matches] = [rowsOf("captions"), rowsOf("answers"), rowsOf("matches")];
  return samples.map(({ id, image, question, alt, truth }) => {
    const rows = [captions.get(id)!, answers.get(id)!, matches.get(id)!];
    const { error } = rows.find(({ error }) => error) ?? {};
    if (error) throw new Error(`${image}: ${error.code}: ${error.message}`);
    const [{ caption }, { answer }, { itm }] = rows as [ResultRow, ResultRow, ResultRow];
    return { name: image, file: here(image), caption: caption!, question, answer: answer!, alt, itm: itm!, truth };
  });
}

function rowsOf(folder: keyof typeof JOBS): Map<string, ResultRow> {
  const job = `${output}${folder}/`;
  const { shards } = JSON.parse(readFileSync(`${job}summary.json`, "utf8")) as { shards: number };
  const files = Array.from({ length: shards }, (_, n) => `${job}results/${String(n).padStart(6, "0")}.jsonl`);
  const rows = files.flatMap(lines).map((line) => JSON.parse(line) as ResultRow);
  return new Map(rows.map((row) => [row.id, row]));
}

function lines(file: string): string[] {
  return readFileSync(file, "utf8").trimEnd().split("\n");
}

function printTable(rows: Pictured[]): void {
  const width = Math.max(...rows.map(({ name }) => name.length));
  const line = (name: string, text: string, truth: string | null) =>
    console.log(`${name.padEnd(width)}  ${text}${truth === null ? "" : `   (in the picture: ${truth})`}`);
  for (const { name, caption, question, answer, alt, itm, truth } of rows) {
    line(name, caption, caption === truth.caption ? null : truth.caption);
    line("", `${question} ${answer}`, answer === truth.answer ? null : truth.answer);
    line("", `${itm.toFixed(3)} for "${alt}"`, itm > 0.5 === truth.alt_matches ? null : truth.caption);
  }
  console.log(`\n${verdict(rows)}`);
}

function verdict(rows: Pictured[]): string {
  const count = (right: (row: Pictured) => boolean) => `${rows.filter(right).length} of ${rows.length}`;
  return [
    `${count(({ caption, truth }) => caption === truth.caption)} captions are exactly right`,
    `${count(({ answer, truth }) => answer === truth.answer)} answers are right`,
    `${count(({ itm, truth }) => itm > 0.5 === truth.alt_matches)} web texts are judged right (above 0.5: it matches)`,
  ].join("\n");
}
