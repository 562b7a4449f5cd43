import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Store, storesFromEnv } from "../../src/storage/index.ts";
import { Manifest } from "./manifests.ts";
import { itm } from "./tasks.ts";

let folder: string;
let store: Store;
const stores = storesFromEnv({});
const open = (name: string, options?: ConstructorParameters<typeof Manifest>[2]) =>
  new Manifest(stores, decodeURI(store.uri) + name, options);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-csv-"));
});
afterAll(() => rm(folder, { recursive: true }));
beforeEach(async () => {
  store = stores.at(join(await mkdtemp(join(folder, "test-")), "in"));
});

const write = async (text: string | Buffer, name = "list.csv") => {
  await store.put(name, text);
  return name;
};
const refused = (message: RegExp) => ({ code: "MANIFEST_INVALID", message: expect.stringMatching(message) });

test("columns by their names, whatever their order; empty fields are absent; ids are text as written", async () => {
  const text = '\uFEFFsku,"alt",url,price\r\n007,"a ""dog"",\r\nrunning",a.jpg,1.50\r\n\r\n8,cat,s3://b/k.jpg,\r\n';
  const manifest = open(await write(text), { task: itm("alt"), image: "url", id: "sku", keep: ["price"] });
  await manifest.check();
  const uri = (name: string) => store.uriOf(name);
  expect(await manifest.records()).toEqual([
    { id: "007", image: uri("a.jpg"), kept: { price: "1.50" }, texts: ['a "dog",\r\nrunning'] },
    { id: "8", image: "s3://b/k.jpg", texts: ["cat"] },
  ]);
  await manifest.expectResumable();
});

test("TSV; without an id the image is it, and without both the line", async () => {
  await write('image\ttext\na,b.jpg\t"one\t1"\n', "list.tsv");
  expect(await open("list.tsv", { task: itm("text") }).records()).toEqual([
    { id: "a,b.jpg", image: store.uriOf("a,b.jpg"), texts: ["one\t1"] },
  ]);
  await write("image,text\na.jpg,\n,b\n");
  const rows = await open("list.csv", { task: itm("text") }).records();
  expect(rows.map(({ id, error }) => [id, error?.code, error?.message])).toEqual([
    ["a.jpg", "TEXT_MISSING", "no `text`"],
    ["line 3", "RECORD_INVALID", "no `image`"],
  ]);
});

test("resumes after any record: quoted line ends, broken quotes, ragged rows, blank lines", async () => {
  const rows = Array.from({ length: 60 }, (_, n) => {
    const image = n % 9 === 4 ? `"${n}\n\n"".jpg"` : `ü${n}.jpg`;
    return n % 11 === 3 ? `${n},"broken` : n % 13 === 5 ? `${n}` : `${n},${image}${n % 7 === 0 ? "\n" : ""}`;
  });
  const manifest = open(await write(`\n id,image\n${rows.join("\n")}`));
  await expect(manifest.check()).rejects.toMatchObject(refused(/list\.csv line \d+: /));
  const records = await manifest.records();
  const ids = records.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  expect(records.filter(({ error }) => error).length).toBeGreaterThan(5);
  await manifest.expectResumable();
});

test.each([
  ["url,id\na.jpg,1\n", /line 1: the header: no column `image`; there are `url`, `id`/],
  ["image,id,image\na,1,b\n", /line 1: the header: two columns are called `image`/],
  [",,\na,1,b\n", /line 1: the header: it has no names of columns/],
  ['image,"id\na.jpg,1\n', /line 1: the header: a quote is opened and never closed/],
  ["image,id\na.jpg,1\nb.jpg\n", /list\.csv line 3: it has 1 fields, and the header 2/],
  ['image,id\na.jpg,1\n"b"x.jpg,2\nc.jpg,3', /list\.csv line 3: text follows the quote that ends field 1/],
  ["image,id\na.jpg,1\ngs://b/k,2\n", /list\.csv line 3: .*gs:\/\//],
  ["image,id\na.jpg,1\nb.jpg,\n", /`id` is there in .*list\.csv line 2, and missing in .*list\.csv line 3/],
  [Buffer.from("\uFEFFimage\na.jpg", "utf16le"), /its text is UTF-16/],
  [Buffer.from("image,id\na.jpg,1\n", "utf16le"), /its text is UTF-16/],
  [Buffer.from("1f8b0800", "hex"), /compressed with gzip/],
  [Buffer.from("28b52ffd00", "hex"), /compressed with zstd/],
  [Buffer.from("PAR1"), /it is a Parquet file/],
  [Buffer.from("504b030414", "hex"), /zip archive \(or an Excel file\)/],
  ["image\na\0.jpg\n", /it holds zero bytes/],
])("%j is refused, with file and line", async (text, message) => {
  const manifest = open(await write(text));
  await expect(manifest.check()).rejects.toMatchObject(refused(message));
  await expect(manifest.check()).rejects.toThrow("list.csv");
});

test("columns that were named must be there", async () => {
  await write("image,id\na.jpg,1\n");
  for (const options of [{ id: "sku" }, { keep: ["price"] }, { task: itm("alt") }, { image: "url" }]) {
    await expect(open("list.csv", options).check()).rejects.toMatchObject(refused(/no column `(sku|price|alt|url)`/));
  }
});

test("the unnamed column of pandas is none; a header alone is empty", async () => {
  expect(await open(await write(",image\n0,a.jpg\n")).records()).toMatchObject([{ id: "a.jpg" }]);
  for (const text of ["image,id\n", ""]) {
    await expect(open(await write(text)).check()).rejects.toMatchObject({ code: "INPUT_EMPTY" });
  }
});

test("what comes after the first 1,000 rows is a row: a broken one, a mixed id, a broken file of several", async () => {
  const good = Array.from({ length: 1_000 }, (_, n) => `${n}.jpg,${n}\n`).join("");
  await write(`image,id\n${good}"x"y,1\nb.jpg,\n`, "0.csv");
  await write("url\nc.jpg\n", "1.csv");
  await write(Buffer.from("1f8b08", "hex"), "2.csv");
  await write('image\nd.jpg\n"e\n', "3.csv");
  const manifest = open("{0..3}.csv");
  await manifest.check();
  const rest = (await manifest.records()).slice(1_000).map(({ id, error }) => [id, error?.message]);
  expect(rest).toEqual([
    ["0.csv line 1002", "text follows the quote that ends field 1"],
    ["b.jpg", undefined],
    ["1.csv", expect.stringMatching(/1\.csv: line 1: the header: no column `image`; there are `url`/)],
    ["2.csv", expect.stringMatching(/2\.csv: it is compressed with gzip/)],
    ["d.jpg", undefined],
    ["3.csv line 3", "a quote is opened and never closed"],
  ]);
  await manifest.expectResumable(250);
});
