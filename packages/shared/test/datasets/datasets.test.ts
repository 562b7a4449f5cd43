import { appendFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Cursor, decodingSchema, type JobTaskSpec, type TaskSpec } from "../../src/contract/index.ts";
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

const decoding = decodingSchema.parse({});
const caption: TaskSpec = { name: "caption", decoding, captions: 1, prompt: null };
const PLAIN = { columns: { image: "image", id: "id" }, keep: [] as string[] };
const at = (input: typeof PLAIN) => ({ ...input, kind: "jsonl" as const, uri: join(folder, "list.jsonl") });
const manifest = (task: JobTaskSpec = caption, input = PLAIN) => manifestDataset(at(input), stores, task);
const check = (task: JobTaskSpec = caption, input = PLAIN) => checkManifest(at(input), stores, task);
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
    const records = (await all(manifest())).map(({ record }) => record);
    expect(records).toEqual([
      { id: "one", image: url("pics/ä b?#%25.jpg") },
      { id: "2", image: "s3://b/k y?#%.jpg" },
      { id: "/abs/x.png", image: "file:///abs/x.png" },
    ]);
  });

  test("a number is an id to its last digit, wherever the same name is as well", async () => {
    const ids = ["9007199254740993", "-12345678901234567890", "1.50"];
    await write(ids.map((id) => `{"more":{"id":1},"id":${id},"image":"a.jpg"}`).join("\n"));
    await check();
    expect((await all(manifest())).map(({ record }) => record.id)).toEqual(ids);
  });

  test("resumes at the byte after any record, with the right line numbers", async () => {
    const lines = Array.from({ length: 50 }, (_, n) =>
      n % 7 === 3 ? "not json" : `{"id":"é${n}","image":"${n}.jpg"}`,
    );
    await write(lines.join("\n"));
    const dataset = manifest();
    const entries = await all(dataset);
    expect(entries).toHaveLength(50);
    for (const [i, { cursor }] of entries.entries()) expect(await all(dataset, cursor)).toEqual(entries.slice(i + 1));
    expect(entries[3]!.record).toMatchObject({ id: "line 4", image: null, error: { code: "RECORD_INVALID" } });
  });

  test("a manifest that changed cannot be resumed", async () => {
    await write('{"image":"a.jpg"}\n{"image":"b.jpg"}\n');
    const dataset = manifest();
    const [first] = await all(dataset);
    await appendFile(join(folder, "list.jsonl"), '{"image":"c.jpg"}\n');
    await expect(all(dataset, first!.cursor)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
  });

  test.each([
    ["not json", "not valid JSON"],
    ['\uFEFF{"image":"a.jpg"}', "not valid JSON"],
    ["[1]", "not a JSON object"],
    ["null", "not a JSON object"],
    ['{"id":"a"}', "no `image`"],
    ['{"image":7}', "`image` is not text"],
    ['{"image":"gs://b/k.jpg"}', "gs://"],
    ['{"id":{},"image":"a.jpg"}', "`id` is neither text nor a number"],
    ['{"id":true,"image":"a.jpg"}', "`id` is neither text nor a number"],
    ['{"image":null}', "no `image`"],
    [`{"image":"${"x".repeat(1024 * 1024)}"}`, "longer than"],
  ])("the line %.40s is refused early, and an error row later", async (line, message) => {
    const good = (n: number) => Array.from({ length: n }, (_, i) => `{"image":"${i}.jpg"}\n`).join("");
    await write(`${good(999)}${line}\n`);
    const refused = expect.objectContaining({ code: "MANIFEST_INVALID", message: expect.stringContaining(message) });
    await expect(check()).rejects.toEqual(refused);
    await expect(check()).rejects.toThrow("line 1000");

    await write(`${good(1_000)}${line}\n${good(1)}`);
    await check();
    const entries = await all(manifest());
    expect(entries).toHaveLength(1_002);
    expect(entries[1_000]!.record.error!.message).toContain(message);
    expect(entries[1_001]!.record.error).toBeUndefined();
  });

  describe("with a text column", () => {
    const vqa: TaskSpec = { name: "vqa", decoding, questions: { column: "question" }, template: null, answers: null };
    const read = async (task: TaskSpec) => (await all(manifest(task))).map(({ record }) => record);

    test("a text or a list of texts stands in the record; what the job gives does not", async () => {
      await write('{"image":"a.jpg","question":"one?"}\n{"image":"b.jpg","question":["one?","two?"]}\n');
      expect(await read(vqa)).toEqual([
        { id: "a.jpg", image: url("a.jpg"), texts: ["one?"] },
        { id: "b.jpg", image: url("b.jpg"), texts: ["one?", "two?"] },
      ]);
      const given = { ...vqa, questions: { given: ["three?"] } };
      expect(await read(given)).toEqual(["a.jpg", "b.jpg"].map((name) => ({ id: name, image: url(name) })));
    });

    test.each([
      ["", "TEXT_MISSING", "no `question`"],
      [',"question":null', "TEXT_MISSING", "no `question`"],
      [',"question":" "', "TEXT_MISSING", "`question` is empty"],
      [',"question":[]', "TEXT_MISSING", "`question` is an empty list"],
      [',"question":7', "TEXT_INVALID", "`question` is not text"],
      [',"question":{"text":"one?"}', "TEXT_INVALID", "`question` is not text"],
      [',"question":["one?",null]', "TEXT_INVALID", "text 2 of `question` is not text"],
      [',"question":["","two?"]', "TEXT_INVALID", "text 1 of `question` is empty"],
      [`,"question":${JSON.stringify(Array(1_001).fill("?"))}`, "TEXT_INVALID", "holds 1001 texts; 1000 at most"],
    ])("%.40s is refused early, and a row's own error later", async (field, code, message) => {
      const good = (n: number) => '{"id":"w","image":"a.jpg","question":"one?"}\n'.repeat(n);
      const line = `{"id":"x","image":"b.jpg"${field}}\n`;
      await write(good(999) + line);
      const refused = {
        code: "MANIFEST_INVALID",
        message: expect.stringMatching(new RegExp(`line 1000: .*${message}`)),
      };
      await expect(check(vqa)).rejects.toMatchObject(refused);
      // The same file is all right for a task that takes nothing from the column.
      await check();

      await write(good(1_000) + line + good(1));
      await check(vqa);
      const records = await read(vqa);
      const error = { code, message: expect.stringContaining(message), retryable: false };
      expect(records[1_000]).toEqual({ id: "x", image: url("b.jpg"), error });
      expect(records[1_001]!.texts).toEqual(["one?"]);
    });

    test("embedding texts needs no image, and takes none that it can't use amiss", async () => {
      const embed: TaskSpec = { name: "embed", texts: { column: "text" } };
      const lines = ['{"text":"one"}', '{"id":7,"text":"two"}', '{"image":"a.jpg","text":"three"}'];
      await write(
        [...lines, '{"id":"x","image":"gs://b/k.jpg","text":"four"}', '{"image":7,"text":"five"}'].join("\n"),
      );
      await expect(check(embed)).rejects.toThrow(/`id` is missing in .*list.jsonl line 1, and a number in .* line 2/);
      expect(await read(embed)).toEqual([
        { id: "line 1", image: null, texts: ["one"] },
        { id: "7", image: null, texts: ["two"] },
        { id: "a.jpg", image: url("a.jpg"), texts: ["three"] },
        { id: "x", image: "gs://b/k.jpg", texts: ["four"] },
        { id: "line 5", image: null, texts: ["five"] },
      ]);
      expect((await read({ name: "embed", texts: null }))[0]!.error).toMatchObject({ code: "RECORD_INVALID" });
    });
  });

  test("image, id and what is kept may be in fields of other names", async () => {
    await write('{"url":"a.jpg","sku":7,"price":1.5,"tags":["x",null],"image":"no.jpg"}\n{"url":"b.jpg","sku":8}');
    const input = { columns: { image: "url", id: "sku" }, keep: ["price", "tags"] };
    const dataset = manifest(caption, input);
    await check(caption, input);
    expect((await all(dataset)).map(({ record }) => record)).toEqual([
      { id: "7", image: url("a.jpg"), kept: { price: 1.5, tags: ["x", null] } },
      { id: "8", image: url("b.jpg") },
    ]);
  });

  test("a field that no line has can't be the image's, nor be kept", async () => {
    await write('{"image":"a.jpg"}\n{"image":"b.jpg"}');
    const refused = (message: RegExp) => ({ code: "MANIFEST_INVALID", message: expect.stringMatching(message) });
    const keeping = { ...PLAIN, keep: ["price"] };
    await expect(check(caption, keeping)).rejects.toMatchObject(refused(/none of .* `price`/));
    const named = { ...PLAIN, columns: { image: "url", id: "id" } };
    await expect(check(caption, named)).rejects.toMatchObject(refused(/line 1: no `url`/));
  });

  test("a column that is called as something every object has is the line's own or none", async () => {
    await write('{"image":"a.jpg"}\n{"image":"b.jpg","constructor":"7"}');
    const dataset = manifest(caption, { ...PLAIN, columns: { image: "image", id: "constructor" } });
    expect((await all(dataset)).map(({ record }) => record.id)).toEqual(["a.jpg", "7"]);
    expect((await all(dataset)).map(({ record }) => record.error)).toEqual([undefined, undefined]);
  });

  test("capfilt takes a record without a text; filter does not", async () => {
    await write('{"image":"a.jpg"}\n{"image":"b.jpg","alt":"a dog"}');
    const texts = { column: "alt" };
    const capfilt: JobTaskSpec = { name: "capfilt", texts, decoding, captions: 1, prompt: null, threshold: 0.5 };
    const records = (task: JobTaskSpec) => all(manifest(task)).then((all) => all.map(({ record }) => record));
    expect((await records(capfilt)).map(({ texts }) => texts)).toEqual([[], ["a dog"]]);
    const [first] = await records({ name: "filter", texts, threshold: 0.5 });
    expect(first!.error).toMatchObject({ code: "TEXT_MISSING" });
  });
});
