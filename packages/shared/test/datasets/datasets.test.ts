import { appendFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Cursor } from "../../src/contract/index.ts";
import { checkManifest, type Dataset, type Entry, manifestDataset, prefixDataset } from "../../src/datasets/index.ts";
import { storesFromEnv } from "../../src/storage/index.ts";

let folder: string;
const stores = storesFromEnv({});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-data-"));
});
afterEach(() => rm(folder, { recursive: true }));

async function all(dataset: Dataset, cursor: Cursor | null = null): Promise<Entry[]> {
  const entries: Entry[] = [];
  for await (const chunk of dataset.entries(cursor)) entries.push(...chunk);
  return entries;
}

const manifest = () => {
  const { store, key } = stores.object(join(folder, "list.jsonl"));
  return { store, key, dataset: manifestDataset(store, key) };
};
const write = (text: string) => writeFile(join(folder, "list.jsonl"), text);
const url = (name: string) => pathToFileURL(join(folder, name)).href;

describe("a prefix", () => {
  test("images only, whatever the case of their ending, in the order of their keys' bytes, resumable anywhere", async () => {
    const names = [
      "b.JPG",
      "a/z.png",
      "a.webp",
      "ä b?#%25.jpeg",
      "x.tiff",
      "y.avif",
      "notes.txt",
      "a/.jpg.part",
      "c.gif",
    ];
    await mkdir(join(folder, "a"));
    for (const name of names) await writeFile(join(folder, name), "x");
    const dataset = prefixDataset(stores.at(`${folder}/`));
    const entries = await all(dataset);
    const ids = ["a.webp", "a/z.png", "b.JPG", "c.gif", "x.tiff", "y.avif", "ä b?#%25.jpeg"];
    expect(entries.map(({ record }) => record.id)).toEqual(ids);
    expect(entries.map(({ record }) => record.image)).toEqual(ids.map(url));
    for (const [i, { cursor }] of entries.entries()) {
      expect((await all(dataset, cursor)).map(({ record }) => record.id)).toEqual(ids.slice(i + 1));
    }
  });
});

describe("a manifest", () => {
  test("its own ids, relative and absolute images, blank lines, a byte order mark, both line ends", async () => {
    await write(
      `\uFEFF{"id":"one","image":"pics/ä b?#%25.jpg"}\r\n\n{"id":2,"image":"s3://b/k y?#%.jpg"}\n{"image":"/abs/x.png"}`,
    );
    const records = (await all(manifest().dataset)).map(({ record }) => record);
    expect(records).toEqual([
      { id: "one", image: url("pics/ä b?#%25.jpg") },
      { id: "2", image: "s3://b/k y?#%.jpg" },
      { id: "/abs/x.png", image: "file:///abs/x.png" },
    ]);
  });

  test("resumes at the byte after any record, with the right line numbers", async () => {
    const lines = Array.from({ length: 50 }, (_, n) =>
      n % 7 === 3 ? "not json" : `{"id":"é${n}","image":"${n}.jpg"}`,
    );
    await write(lines.join("\n"));
    const { dataset } = manifest();
    const entries = await all(dataset);
    expect(entries).toHaveLength(50);
    for (const [i, { cursor }] of entries.entries()) expect(await all(dataset, cursor)).toEqual(entries.slice(i + 1));
    expect(entries[3]!.record).toMatchObject({ id: "line 4", image: null, error: { code: "RECORD_INVALID" } });
  });

  test("a manifest that changed cannot be resumed", async () => {
    await write('{"image":"a.jpg"}\n{"image":"b.jpg"}\n');
    const { dataset } = manifest();
    const [first] = await all(dataset);
    await appendFile(join(folder, "list.jsonl"), '{"image":"c.jpg"}\n');
    await expect(all(dataset, first!.cursor)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
  });

  test.each([
    ["not json", "not valid JSON"],
    ["[1]", "not a JSON object"],
    ["null", "not a JSON object"],
    ['{"id":"a"}', "no `image`"],
    ['{"image":7}', "`image` is not text"],
    ['{"image":"gs://b/k.jpg"}', "gs://"],
    ['{"id":{},"image":"a.jpg"}', "`id` is neither text nor a number"],
    [`{"image":"${"x".repeat(1024 * 1024)}"}`, "longer than"],
  ])("the line %.40s is refused early, and an error row later", async (line, message) => {
    const good = (n: number) => Array.from({ length: n }, (_, i) => `{"image":"${i}.jpg"}\n`).join("");
    await write(`${good(999)}${line}\n`);
    const { store, key } = manifest();
    const refused = expect.objectContaining({ code: "MANIFEST_INVALID", message: expect.stringContaining(message) });
    await expect(checkManifest(store, key)).rejects.toEqual(refused);
    await expect(checkManifest(store, key)).rejects.toThrow("line 1000");

    await write(`${good(1_000)}${line}\n${good(1)}`);
    await checkManifest(store, key);
    const entries = await all(manifest().dataset);
    expect(entries).toHaveLength(1_002);
    expect(entries[1_000]!.record.error!.message).toContain(message);
    expect(entries[1_001]!.record.error).toBeUndefined();
  });
});
