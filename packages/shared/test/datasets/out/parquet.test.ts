/** Parquet files, read by DuckDB and by hyparquet. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { afterEach, beforeEach, expect, test } from "vitest";
import { describeParquet, query } from "../../../../../test/support/duckdb.ts";
import { type JobTaskSpec, type ResultRow, resultRowSchema } from "../../../src/contract/index.ts";
import { decodingSchema } from "../../../src/contract/task.ts";
import { columnsOf, type Line, linesOf, parquetFile, type TableSpec } from "../../../src/datasets/index.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-parquet-"));
});
afterEach(() => rm(folder, { recursive: true }));

const decoding = decodingSchema.parse({});
const TASKS = {
  caption: { name: "caption", decoding, captions: 1, prompt: null },
  captions: { name: "caption", decoding, captions: 3, prompt: null },
  vqa: { name: "vqa", decoding, questions: { given: ["a dog?"] }, template: null, answers: null },
  vqaSeveral: { name: "vqa", decoding, questions: { given: ["a dog?", "a cat?"] }, template: null, answers: null },
  vqaColumn: { name: "vqa", decoding, questions: { column: "q" }, template: null, answers: null },
  itm: { name: "itm", texts: { given: ["a dog"] } },
  itc: { name: "itc", texts: { given: ["a dog", "a cat"] } },
  itcColumn: { name: "itc", texts: { column: "alt" } },
  embed: { name: "embed", texts: null },
  embedText: { name: "embed", texts: { given: ["a dog"] } },
  capfilt: { name: "capfilt", texts: null, decoding, captions: 1, prompt: null, threshold: 0.5 },
  filter: { name: "filter", texts: { column: "alt" }, threshold: 0.5 },
} as const satisfies Record<string, JobTaskSpec>;

const specOf = (task: JobTaskSpec, keep: string[] = []): TableSpec => ({ task, input: { keep } });
const row = (fields: Partial<ResultRow>): ResultRow =>
  resultRowSchema.parse({ id: "1", image: "s3://b/1.jpg", ...fields });
const path = (name: string) => join(folder, `${name}.parquet`);

async function write(name: string, spec: TableSpec, rows: readonly ResultRow[]): Promise<string> {
  const lines = rows.flatMap((row) => linesOf(spec.task, row, false));
  await writeFile(path(name), Buffer.concat(await Array.fromAsync(parquetFile(columnsOf(spec), [lines]))));
  return path(name);
}

const FIRST = { id: "VARCHAR", image: "VARCHAR", member: "VARCHAR" };
const LAST = { warnings: "VARCHAR[]" };
const ANSWERS = "STRUCT(question VARCHAR, answer VARCHAR, score DOUBLE)[]";

test.each<[keyof typeof TASKS, Record<string, string>, Partial<ResultRow>]>([
  ["caption", { caption: "VARCHAR", score: "DOUBLE" }, { caption: "ein Hund 🐕, „groß“", score: -0.1 }],
  [
    "captions",
    { caption: "VARCHAR", score: "DOUBLE", captions: 'STRUCT("text" VARCHAR, score DOUBLE)[]' },
    {
      caption: "a",
      score: -0.1,
      captions: [
        { text: "a", score: -0.1 },
        { text: "", score: -2 },
      ],
    },
  ],
  ["vqa", { answer: "VARCHAR", score: "DOUBLE" }, { answer: "yes", score: -1e-9 }],
  ["vqaSeveral", { answers: ANSWERS }, { answers: [{ question: "a dog?", answer: "no", score: -3 }] }],
  ["vqaColumn", { answer: "VARCHAR", score: "DOUBLE", answers: ANSWERS }, { answer: "yes", score: 0 }],
  ["itm", { itm: "DOUBLE" }, { itm: 0.123456789012345 }],
  ["itc", { scores: "DOUBLE[]" }, { scores: [0.25, -1] }],
  ["itcColumn", { itc: "DOUBLE", scores: "DOUBLE[]" }, { itc: -0.5 }],
  ["embed", { embedding: "FLOAT[]", embeddings: "FLOAT[][]" }, { embedding: [0.5, -0.25] }],
  [
    "embed",
    { embedding: "FLOAT[]", embeddings: "FLOAT[][]" },
    {
      embeddings: [
        [0.5, 1],
        [-0.25, 2],
      ],
    },
  ],
  ["embedText", { embedding: "FLOAT[]" }, { embedding: [1] }],
])("%s: columns of the right types, with the row's values", async (name, columns, fields) => {
  const first = row({ ...fields, member: "a/1.jpg", warnings: ["cut", "größer"] });
  const spec = specOf(TASKS[name]);
  const file = await write("a", spec, [first, row({ id: "2" })]);
  expect(await describeParquet(file)).toEqual({ ...FIRST, ...columns, ...LAST });
  const names = [...Object.keys(FIRST), ...Object.keys(columns), ...Object.keys(LAST)];
  const nothing = Object.fromEntries(names.map((column) => [column, null]));
  const expected = [
    { ...nothing, ...first },
    { ...nothing, ...row({ id: "2" }) },
  ];
  expect(await query(`SELECT * FROM '${file}'`)).toEqual(expected);
  expect(await parquetReadObjects({ file: await asyncBufferFromFile(file) })).toEqual(expected);
});

test.each(["capfilt", "filter"] as const)("%s: a line for each text", async (name) => {
  const pairs: ResultRow["pairs"] = [
    { text: "ein Hund", origin: "web", itm: 0.9, kept: true },
    { text: "x", origin: "synthetic", itm: 0.1, kept: false },
  ];
  const file = await write("a", specOf(TASKS[name]), [row({ pairs }), row({ id: "2", pairs: [] })]);
  const own = { text: "VARCHAR", origin: "VARCHAR", itm: "DOUBLE", kept: "BOOLEAN" };
  expect(await describeParquet(file)).toEqual({ ...FIRST, ...own, ...LAST });
  const common = { id: "1", image: "s3://b/1.jpg", member: null, warnings: null };
  expect(await query(`SELECT * FROM '${file}'`)).toEqual(pairs!.map((pair) => ({ ...common, ...pair })));
  expect(linesOf(TASKS[name], row({ pairs }), true).map(({ pair }) => pair)).toEqual([pairs![0]]);
});

test("kept columns: text as it is, anything else as JSON; a name that is ours already has a prefix", async () => {
  const keep = ["price", "alt", "ID", "kept_ID", "caption", "constructor"];
  const kept = { price: 3.5, alt: "größer", ID: [1, null], caption: { a: "b" }, kept_ID: "theirs" };
  const file = await write("a", specOf(TASKS.caption, keep), [
    row({ caption: "c", score: 0, kept }),
    row({ id: "2", caption: "d", score: 0, kept: { alt: null, price: false } }),
    row({ id: "3", caption: "e", score: 0 }),
  ]);
  const columns = ["price", "alt", "kept_ID", "kept_kept_ID", "kept_caption", "constructor"];
  const strings = Object.fromEntries(columns.map((name) => [name, "VARCHAR"]));
  const types = await describeParquet(file);
  expect(types).toEqual({ ...FIRST, caption: "VARCHAR", score: "DOUBLE", ...LAST, ...strings });
  expect(Object.keys(types).slice(-columns.length)).toEqual(columns);
  const list = columns.map((name) => `"${name}"`).join(", ");
  const nothing = Object.fromEntries(columns.map((name) => [name, null]));
  expect(await query(`SELECT ${list} FROM '${file}'`)).toEqual([
    { ...nothing, price: "3.5", alt: "größer", kept_ID: "[1,null]", kept_kept_ID: "theirs", kept_caption: '{"a":"b"}' },
    { ...nothing, price: "false" },
    nothing,
  ]);
});

test("files of one job with rows of different kinds are one table", async () => {
  const spec = specOf(TASKS.vqaColumn, ["note"]);
  await write("a", spec, [row({ answer: "yes", score: -1, kept: { note: 1 } })]);
  await write("b", spec, [row({ id: "2", answers: [{ question: "q", answer: "no", score: -2 }] })]);
  const all = await query(`SELECT id, answer, answers, note FROM read_parquet('${folder}/*.parquet') ORDER BY id`);
  expect(all).toEqual([
    { id: "1", answer: "yes", answers: null, note: "1" },
    { id: "2", answer: null, answers: [{ question: "q", answer: "no", score: -2 }], note: null },
  ]);
});

test("row groups are bounded in bytes, and chunks make no difference", async () => {
  const spec = specOf(TASKS.embed);
  const vector = (n: number) => Array.from({ length: 16 }, (_, i) => Math.fround(Math.sin(n * 16 + i)));
  const lines = Array.from({ length: 1_000 }, (_, n) => ({ row: row({ id: String(n), embedding: vector(n) }) }));
  const bytesOf = async (chunks: Line[][]) =>
    Buffer.concat(await Array.fromAsync(parquetFile(columnsOf(spec), chunks, 64 * 1024)));
  const whole = await bytesOf([lines]);
  expect((await bytesOf(lines.map((line) => [line]))).equals(whole)).toBe(true);
  await writeFile(path("a"), whole);
  const { row_groups } = await parquetMetadataAsync(await asyncBufferFromFile(path("a")));
  expect(row_groups).toHaveLength(3);
  const [found] = await query(`SELECT count(*)::INT AS rows, max(len(embedding))::INT AS width FROM '${path("a")}'`);
  expect(found).toEqual({ rows: 1_000, width: 16 });
  expect(await query(`SELECT embedding FROM '${path("a")}' WHERE id = '999'`)).toEqual([{ embedding: vector(999) }]);
});
