import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { type DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import { parquetMetadata } from "hyparquet";
import { type ParquetWriteOptions, parquetWriteBuffer } from "hyparquet-writer";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { readParquet } from "../../src/datasets/parquet.ts";
import { columnsOf } from "../../src/datasets/parquet-columns.ts";
import { wantedOfRow } from "../../src/datasets/row.ts";
import { type Store, storesFromEnv } from "../../src/storage/index.ts";
import { Manifest } from "./manifests.ts";
import { caption, itm } from "./tasks.ts";

let folder: string;
let duckdb: DuckDBConnection;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-parquet-"));
  duckdb = await (await DuckDBInstance.create(":memory:")).connect();
});
afterAll(() => rm(folder, { recursive: true }));

/** What DuckDB writes of a query. */
async function written(query: string, options = ""): Promise<Buffer> {
  const file = join(folder, "written.parquet");
  await duckdb.run(`copy (${query}) to '${file}' (format parquet${options})`);
  return readFile(file);
}

type Column = ParquetWriteOptions["columnData"][number];
const images = (n: number): Column => ({
  name: "image",
  type: "STRING",
  data: Array.from({ length: n }, (_, i) => `${i}.jpg`),
});
const made = (columnData: Column[], options: Partial<ParquetWriteOptions> = {}) =>
  Buffer.from(parquetWriteBuffer({ columnData, ...options }));

let store: Store;
const stores = storesFromEnv({});
const open = (name: string, options?: ConstructorParameters<typeof Manifest>[2]) =>
  new Manifest(stores, decodeURI(store.uri) + name, options);

beforeEach(async () => {
  store = stores.at(join(await mkdtemp(join(folder, "test-")), "in"));
});

const write = async (bytes: Buffer, name = "list.parquet") => {
  await store.put(name, bytes);
  return name;
};
const refused = (message: RegExp) => ({ code: "MANIFEST_INVALID", message: expect.stringMatching(message) });

test("DuckDB's types as JSON: whole numbers, times, decimals, lists, structs", async () => {
  const bytes = await written(`select 'a b.jpg' as url, 9007199254740993::bigint as sku, 7::bigint as small,
    ['one', 'two'] as texts, timestamp '2024-01-02 03:04:05.120456' as local, timestamptz '1969-12-31 23:59:59.5+00' as utc,
    timestamp_ns '2024-01-02 03:04:05.123456789' as nanos, timestamp '2024-01-02 03:04:05' as whole, date '2024-02-29' as day,
    1.25::decimal(10,2) as dec, 170141183460469.25::decimal(38,2) as wide, 18446744073709551615::ubigint as unsigned,
    {a: 1::bigint, b: null} as struct, null::varchar as none, 'nan'::double as nan, '{"x":[1]}'::json as json,
    'infinity'::timestamp as never, uuid '0e888c43-2a3d-43bd-a9ef-0c999a7eb33d' as uuid, true as yes, 1.5::float as float,
    [[1, 2], null] as lists, map {'k': 1} as map`);
  const keep =
    "small local utc nanos whole day dec wide unsigned struct none nan json never uuid yes float lists map sku";
  const options = { image: "url", id: "sku", task: itm("texts"), keep: keep.split(" ") };
  const manifest = open(await write(bytes), options);
  await manifest.check();
  expect(await manifest.records()).toEqual([
    {
      id: "9007199254740993",
      image: store.uriOf("a b.jpg"),
      texts: ["one", "two"],
      kept: {
        small: 7,
        local: "2024-01-02T03:04:05.120456",
        utc: "1969-12-31T23:59:59.500000Z",
        nanos: "2024-01-02T03:04:05.123456789",
        whole: "2024-01-02T03:04:05",
        day: "2024-02-29",
        dec: 1.25,
        wide: 170141183460469.25,
        unsigned: "18446744073709551615",
        struct: { a: 1, b: null },
        none: null,
        nan: null,
        json: { x: [1] },
        never: "9223372036854775807",
        uuid: "0e888c43-2a3d-43bd-a9ef-0c999a7eb33d",
        yes: true,
        float: 1.5,
        lists: [[1, 2], null],
        map: { k: 1 },
        sku: "9007199254740993",
      },
    },
  ]);
});

test.each(["uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4_raw"])(
  "DuckDB's %s: several row groups, dictionaries, lists, nulls; resumable",
  async (codec) => {
    const bytes = await written(
      `select 'p' || i || '.jpg' as image, 'id ' || i as id, case when i % 3 = 0 then ['none'] else [i::varchar, 'text ' || (i % 7)] end as texts,
       case when i % 5 = 0 then null else 'c' || (i % 4) end as colour from range(0, 4000) t(i)`,
      `, codec ${codec}, row_group_size 2048`,
    );
    const lists = open(await write(bytes), { task: itm("texts"), keep: ["colour"] });
    const records = await lists.records();
    expect(records).toHaveLength(4_000);
    for (const [i, { id, texts, kept }] of records.entries()) {
      expect([id, texts, kept]).toEqual([
        `id ${i}`,
        i % 3 === 0 ? ["none"] : [`${i}`, `text ${i % 7}`],
        { colour: i % 5 === 0 ? null : `c${i % 4}` },
      ]);
    }
    await lists.expectResumable(1_500);
    await open("list.parquet", { keep: ["colour"] }).expectResumable(1_500);
  },
);

test.each([
  ["GZIP", gzipSync],
  ["ZSTD", zstdCompressSync],
] as const)(
  "hyparquet-writer's %s, small pages and row groups: resumable after every record",
  async (codec, compress) => {
    const data = Array.from({ length: 120 }, (_, i) => (i % 4 === 1 ? null : `text ${i} ${"x".repeat(i % 50)}`));
    const columns: Column[] = [
      images(120),
      { name: "id", type: "INT64", data: Array.from({ length: 120 }, (_, i) => BigInt(i)) },
      { name: "text", type: "STRING", data },
    ];
    const compressors = { [codec]: compress };
    const bytes = made(columns, { codec, compressors, rowGroupSize: 50, pageSize: 500 });
    const manifest = open(await write(bytes), { task: itm("text") });
    const records = await manifest.records();
    expect(records.map(({ id, error }) => [id, error?.code])).toEqual(
      data.map((text, i) => [String(i), text === null ? "TEXT_MISSING" : undefined]),
    );
    await manifest.expectResumable();
  },
);

test("a group of more rows than are decoded at once, from its pages", async () => {
  const n = 140_000;
  const manifest = open(await write(made([images(n)], { rowGroupSize: n })));
  const entries = await manifest.entries();
  expect(entries.length).toBe(n);
  expect(entries.findIndex(({ record }, i) => record.id !== `${i}.jpg`)).toBe(-1);
  for (const i of [69_999, 139_000]) {
    const rest = await manifest.entries(entries[i]!.cursor);
    expect(rest.map(({ record }) => record.id)).toEqual(entries.slice(i + 1).map(({ record }) => record.id));
  }
});

test.each<[string, () => Promise<Buffer> | Buffer, RegExp, ConstructorParameters<typeof Manifest>[2]?]>([
  ["text", () => Buffer.from("image\na.jpg\nb.jpg\n"), /it is no Parquet file/],
  ["nothing", () => Buffer.alloc(0), /it is no Parquet file/],
  ["what was cut off", () => made([images(100)]).subarray(0, 400), /it is cut off/],
  ["a broken footer", () => damaged(made([images(100)]), -20), /its footer can't be read/],
  ["a broken page", () => damaged(made([images(9_000)], { rowGroupSize: 500 }), 40), /rows 1 to 500 can't be read/],
  ["no image", () => made([{ name: "url", data: ["a.jpg"] }]), /no column `image`; there are `url`/],
  ["no id", () => made([images(1)]), /no column `sku`/, { id: "sku" }],
  ["nothing to keep", () => made([images(1)]), /no column `price`/, { keep: ["price"] }],
  ["no text", () => made([images(1)]), /no column `alt`/, { task: itm("alt") }],
  ["a struct for an image", () => written("select {path: 'a.jpg'} as image"), /`image` is a list, struct or map/],
  ["a map for an id", () => written("select 'a.jpg' as image, map {'a': 1} as id"), /`id` is a list, struct or map/],
  ["a list for an image", () => written("select ['a.jpg'] as image"), /`image` is a list, struct or map/],
  [
    "a struct for texts",
    () => written("select 'a.jpg' as image, [{a: 'b'}] as alt"),
    /`alt` is a struct or map, neither text nor a list of texts/,
    { task: itm("alt") },
  ],
  ["bytes for an image", () => written("select 'a.jpg'::blob as image"), /`image` holds bytes, not text/],
  [
    "bytes in what is kept",
    () => written("select 'a.jpg' as image, {a: 'b'::blob} as more"),
    /`more` holds bytes, which rows can't keep/,
    { keep: ["more"] },
  ],
  [
    "an interval",
    () => written("select 'a.jpg' as image, interval 1 day as more"),
    /`more` holds bytes/,
    { keep: ["more"] },
  ],
  [
    "a codec",
    () => made([images(1)], { codec: "LZO", compressors: { LZO: (bytes) => bytes } }),
    /`image` is compressed with LZO/,
  ],
  ["a number for an image", () => written("select 7 as image"), /list\.parquet row 1: `image` is not text/],
  [
    "some ids",
    () => written("select * from (values ('a.jpg', 1), ('b.jpg', null)) t(image, id)"),
    /`id` is there in .*list\.parquet row 1, and missing in .*list\.parquet row 2/,
  ],
  ["no location", () => written("select 'gs://b/k' as image"), /list\.parquet row 1: .*gs:/],
])("%s is refused, with file, row and column", async (_, bytes, message, options) => {
  const manifest = open(await write(await bytes()), options);
  await expect(manifest.check()).rejects.toMatchObject(refused(message));
  await expect(manifest.check()).rejects.toThrow("list.parquet");
});

/** DuckDB needs an extension from the network to encrypt: the end of such a file, and the mark of such a column, are put in. */
test("an encrypted one is refused, footer and all or columns only", async () => {
  const bytes = made([images(1)]);
  const metadata = parquetMetadata(bytes);
  bytes.write("PARE", bytes.length - 4, "latin1");
  await expect(open(await write(bytes)).check()).rejects.toMatchObject(refused(/list\.parquet: it is encrypted/));
  const wanted = wantedOfRow({ columns: { image: "image", id: "id" }, keep: [] }, caption);
  expect(columnsOf(metadata, wanted)).toMatchObject({ names: ["image"] });
  metadata.row_groups[0]!.columns[0]!.crypto_metadata = {};
  expect(columnsOf(metadata, wanted)).toBe("the column `image` is encrypted");
});

test("a broken one among several is a row that says where, and the next follows", async () => {
  const many = made([images(3_000)], { rowGroupSize: 1_000, codec: "UNCOMPRESSED" });
  await write(many, "0.parquet");
  await write(made([images(4_000)], { rowGroupSize: 1_000 }), "1.parquet");
  await write(damaged(made([images(4_000)], { rowGroupSize: 1_000 }), 0.6), "2.parquet");
  await write(many.subarray(0, 2_000), "3.parquet");
  await write(Buffer.from("PAR1"), "4.parquet");
  await write(made([{ name: "url", data: ["a.jpg"] }]), "5.parquet");
  await write(made([images(0)]), "6.parquet");
  await write(made([images(1)]), "7.parquet");
  const manifest = open("{0..7}.parquet");
  await manifest.check();
  const records = await manifest.records();
  const failed = records.filter(({ error }) => error).map(({ id, error }) => [id, error!.code, error!.message]);
  expect(failed).toEqual([
    ["2.parquet", "RECORD_INVALID", expect.stringMatching(/2\.parquet: rows 2001 to 3000 can't be read: /)],
    ["3.parquet", "RECORD_INVALID", expect.stringMatching(/3\.parquet: it is cut off/)],
    ["4.parquet", "RECORD_INVALID", expect.stringMatching(/4\.parquet: it is no Parquet file/)],
    ["5.parquet", "RECORD_INVALID", expect.stringMatching(/5\.parquet: no column `image`; there are `url`/)],
  ]);
  expect(records).toHaveLength(3_000 + 4_000 + 2_000 + 4 + 1);
  await manifest.expectResumable(1_500);
});

test("rows and no columns that are wanted: texts need no image", async () => {
  const task = { name: "embed", texts: { column: "text" } } as const;
  const bytes = made([{ name: "text", type: "STRING", data: ["one", "two"] }]);
  expect(await open(await write(bytes), { task }).records()).toEqual([
    { id: "row 1", image: null, texts: ["one"] },
    { id: "row 2", image: null, texts: ["two"] },
  ]);
});

test("few requests: small row groups together, a small file at once, columns that are not wanted not at all", async () => {
  const asked: number[] = [];
  const counted = async (bytes: Buffer) => {
    await write(bytes);
    const object = (await store.stat("list.parquet"))!;
    const stream: Store["stream"] = async (key, options) => {
      asked.push(options!.range!.end! - options!.range!.start);
      return store.stream(key, options);
    };
    const counting = { uriOf: (key: string) => store.uriOf(key), stream } as Store;
    const uri = store.uriOf("list.parquet");
    const file = { store: counting, object, uri, name: "list.parquet", isOneOfSeveral: false };
    let rows = 0;
    for await (const some of readParquet(file, wantedOfRow({ columns, keep: [] }, caption), null)) rows += some.length;
    return { rows, asked: asked.splice(0) };
  };
  const columns = { image: "image", id: "id" };
  const small = made([images(5_000)], { rowGroupSize: 50 });
  expect(await counted(small)).toEqual({ rows: 5_000, asked: [small.length] });

  const noise = (n: number) => Array.from({ length: n }, (_, i) => createHash("sha512").update(`${i}`).digest("hex"));
  const wide = made([images(40_000), { name: "noise", data: noise(40_000) }], { rowGroupSize: 400 });
  const groups = await counted(wide);
  expect(wide.length).toBeGreaterThan(4_000_000);
  // The footer, and one run over all groups: what lies between their images is less than a request costs.
  expect(groups).toEqual({ rows: 40_000, asked: [512 * 1024, expect.any(Number)] });

  const apart = await counted(made([images(40_000), { name: "noise", data: noise(40_000) }], { rowGroupSize: 20_000 }));
  expect(apart.asked).toHaveLength(3);
  expect(Math.max(...apart.asked)).toBeLessThanOrEqual(512 * 1024);
});

/** With other bytes in the middle of it, or at an offset (counted from the end where it is negative). */
function damaged(bytes: Buffer, where: number): Buffer {
  const at = where < 0 ? bytes.length + where : where < 1 ? Math.floor(bytes.length * where) : where;
  return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(12, 0xff), bytes.subarray(at + 12)]);
}
