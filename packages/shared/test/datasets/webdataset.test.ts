import { execFileSync } from "node:child_process";
import { cp, link, mkdir, mkdtemp, open, readFile, rm, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Cursor, inputSchema } from "../../src/contract/index.ts";
import { checkWebdataset, type Entry, kindOfPrefix, webdatasetDataset } from "../../src/datasets/index.ts";
import { TarBytes } from "../../src/datasets/tar-bytes.ts";
import { type Store, storesFromEnv } from "../../src/storage/index.ts";
import { caption, itm } from "./tasks.ts";

let folder: string;
const stores = storesFromEnv({});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-tars-"));
  await mkdir(join(folder, "tars"));
});
afterEach(() => rm(folder, { recursive: true }));

const at = (name: string) => join(folder, name);
const inputOf = (uri: string, keep: string[] = []) => inputSchema.parse({ kind: "webdataset", uri, keep });
const tars = (keep?: string[]) => inputOf(`${at("tars")}/`, keep);

/** Writes the files and makes a tar of them, in their order, with GNU tar. */
async function pack(tar: string, files: Record<string, string | Buffer>, ...options: string[]): Promise<void> {
  for (const [name, body] of Object.entries(files)) {
    await mkdir(dirname(at(`in/${name}`)), { recursive: true });
    await writeFile(at(`in/${name}`), body);
  }
  const names = Object.keys(files);
  execFileSync("tar", [...options, "-cf", at(`tars/${tar}`), "-C", at("in"), "--", ...names]);
}

async function all(input = tars(), task = caption, cursor: Cursor | null = null): Promise<Entry[]> {
  const entries: Entry[] = [];
  for await (const chunk of webdatasetDataset(input, stores, task).entries(cursor)) entries.push(...chunk);
  return entries;
}
const records = async (input = tars(), task = caption) => (await all(input, task)).map(({ record }) => record);

/** The bytes that a record points to. */
async function bytesOf({ record }: Entry): Promise<string> {
  const { offset, size } = record.member!;
  const tar = await readFile(fileURLToPath(record.image!));
  return tar.toString("utf8", offset, offset + size);
}

async function expectResumable(input = tars(), task = caption): Promise<void> {
  const entries = await all(input, task);
  for (const [i, { cursor }] of entries.entries()) expect(await all(input, task, cursor)).toEqual(entries.slice(i + 1));
}

const ODD = [
  "plain.jpg",
  "with space/ä ö ☃ 😀.JPEG",
  `${"long ".repeat(30)}.png`,
  `${"folder/".repeat(50)}deep.webp`,
  `${"ü".repeat(110)}.gif`,
  `${"folder/".repeat(20)}ustar.tif`,
  "many.tiff",
];

describe.each(["v7", "ustar", "oldgnu", "gnu", "posix"])("a tar of GNU tar, format %s", (format) => {
  test("names, ranges that hold exactly the image, resumable after any record", async () => {
    const fits = (name: string) =>
      (format !== "v7" || Buffer.byteLength(name) < 100) &&
      (format !== "ustar" || Math.max(...name.split("/").map((part) => Buffer.byteLength(part))) <= 100);
    const names = ODD.filter((name) => fits(name) && (format !== "ustar" || Buffer.byteLength(name) < 250));
    const files = Object.fromEntries(names.map((name, i) => [name, `${name}${"x".repeat(i * 511)}`]));
    await pack("00000.tar", files, `--format=${format}`);
    const entries = await all();
    expect(entries.map(({ record }) => record.member!.name)).toEqual(names);
    expect(entries.map(({ record }) => record.id)).toEqual(names.map((name) => name.slice(0, name.lastIndexOf("."))));
    for (const [i, entry] of entries.entries()) expect(await bytesOf(entry)).toBe(files[names[i]!]);
    await expectResumable();
  });
});

test.each(["ustar", "gnu", "pax"])(
  "a tar of Python's tarfile, format %s: `..`, absolute names, a size by pax",
  async (format) => {
    await cp(new URL(`fixtures/tarfile-${format}.tar`, import.meta.url), at("tars/a.tar"));
    const entries = await all();
    const long = format === "ustar" ? "u".repeat(90) : "ü".repeat(60);
    expect(entries.map(({ record }) => record.id)).toEqual(["../up", "/abs/olute", "./here", long]);
    expect(await Promise.all(entries.map(bytesOf))).toEqual(["up", "absolute", "", "long"]);
  },
);

describe("samples", () => {
  test("image, txt and json of one key; the task's column and what is kept", async () => {
    const json = JSON.stringify({ url: "http://x/1", alt: ["one", "two"], width: 7, none: null });
    await pack("0.tar", { "d.1/a.jpg": "A", "d.1/a.json": json, "d.1/a.txt": " a cat\n", "d.1/b.png": "B" });
    expect(await records()).toMatchObject([{ id: "d.1/a" }, { id: "d.1/b" }]);
    const [a, b] = await records(tars(["url", "none", "txt", "constructor"]), itm("txt"));
    expect(a).toMatchObject({ texts: ["a cat"], kept: { url: "http://x/1", none: null, txt: "a cat" } });
    expect(Object.keys(a!.kept!)).toHaveLength(3);
    expect(b).toMatchObject({ id: "d.1/b", error: { code: "TEXT_MISSING" } });
    expect((await records(tars(), itm("alt")))[0]).toMatchObject({ texts: ["one", "two"] });
    expect((await records(tars(), itm("width")))[0]).toMatchObject({ error: { code: "TEXT_INVALID" } });
    await expectResumable(tars(["url"]), itm("txt"));
  });

  test("what is no sample is passed over; what is one, and wrong, is a row that says so", async () => {
    await pack("inner.tar", { "x.jpg": "x" });
    const inner = await readFile(at("tars/inner.tar"));
    await rm(at("tars/inner.tar"));
    const files = { "._a.jpg": "mac", "a.jpg": "A", "a.mask.png": "M", "inner.tar": inner, README: "r" };
    await pack("0.tar", {
      ...files,
      "b.jpg": "B",
      "b.png": "B",
      "c.2020.jpg": "C",
      "d.2020.1.jpg": "D",
      "d.2020.2.jpg": "D",
      "e.txt": "text",
      "f.jpg": "F",
      "f.json": "[1]",
      "g.jpg": "G",
      "g.json": `{"alt":"${"x".repeat(1024 * 1024)}"}`,
    });
    const rows = (await records(tars(), itm("alt"))).map(({ id, error }) => [id, error?.message]);
    expect(rows).toEqual([
      ["a", "no `alt`"],
      ["b", "two images of one key, b.jpg and b.png"],
      ["c", "no `alt`"],
      ["d", "two images of one key, d.2020.1.jpg and d.2020.2.jpg"],
      ["e", expect.stringContaining("no image beside e.txt")],
      ["f", "f.json is not a JSON object"],
      ["g", "g.json is longer than 1048576 bytes"],
    ]);
    expect((await records()).map(({ id, error }) => [id, error?.code])).toEqual([
      ["a", undefined],
      ["b", "RECORD_INVALID"],
      ["c", undefined],
      ["d", "RECORD_INVALID"],
      ["e", "RECORD_INVALID"],
      ["f", undefined],
      ["g", undefined],
    ]);
    await expectResumable();
  });

  test.each(["gnu", "posix"])(
    "links and sparse files (%s) are errors of their own, and nothing after them",
    async (format) => {
      await mkdir(at("in"));
      await writeFile(at("in/a.jpg"), "A");
      await link(at("in/a.jpg"), at("in/b.jpg"));
      await symlink("a.jpg", at("in/c.jpg"));
      // 30 pieces of data need GNU's extended maps.
      await writeFile(at("in/d.jpg"), "");
      await truncate(at("in/d.jpg"), 4 * 1024 * 1024);
      const file = await open(at("in/d.jpg"), "r+");
      for (let n = 0; n < 30; n++) await file.write("d", n * 65_536);
      await file.close();
      await pack("0.tar", { "a.jpg": "A" });
      await writeFile(at("in/e.jpg"), "E");
      const names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"];
      execFileSync("tar", [`--format=${format}`, "-S", "-cf", at("tars/0.tar"), "-C", at("in"), ...names]);
      const entries = await all();
      expect(entries.map(({ record }) => [record.id, record.error?.message])).toEqual([
        ["a", undefined],
        ["b", "b.jpg is a hard link"],
        ["c", "c.jpg is a symbolic link"],
        ["d", "d.jpg is a sparse file"],
        ["e", undefined],
      ]);
      expect(await bytesOf(entries[4]!)).toBe("E");
    },
  );
});

describe("headers that are rare", () => {
  /** Changes a header's bytes, and its checksum with them, which old writers took over signed bytes. */
  function rewrite(tar: Buffer, at: number, field: Buffer, offset: number, isSigned = false): void {
    field.copy(tar, at + offset);
    const header = tar.subarray(at, at + 512);
    header.fill(" ", 148, 156);
    const sum = header.reduce((sum, byte) => sum + (isSigned && byte > 127 ? byte - 256 : byte), 0);
    header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  }

  test("a name that is no UTF-8, and a checksum over signed bytes", async () => {
    await pack("0.tar", { "aa.jpg": "A", "bb.jpg": "B" }, "--format=ustar");
    const tar = await readFile(at("tars/0.tar"));
    rewrite(tar, 0, Buffer.from([0xe4, 0xf6]), 0, true);
    rewrite(tar, 1_024, Buffer.from([0xe4, 0xfc]), 0);
    await writeFile(at("tars/0.tar"), tar);
    const entries = await all();
    expect(entries.map(({ record }) => [record.id, record.error])).toEqual([
      ["äö", undefined],
      ["äü", undefined],
    ]);
    expect(await Promise.all(entries.map(bytesOf))).toEqual(["A", "B"]);
    await expectResumable();
    rewrite(tar, 0, Buffer.from("x"), 0);
    tar[148]! ^= 1;
    await writeFile(at("tars/0.tar"), tar);
    expect((await records())[0]!.error!.message).toContain("no tar header at byte 0");
  });

  /** Sparse files: 9 GB of a tar take no room on the disk. */
  test.each(["gnu", "posix"])("a file over 8 GB (%s), and what follows it", async (format) => {
    await mkdir(at("in"));
    const size = 9 * 1024 ** 3 + 5;
    const [huge, after] = [Buffer.alloc(512), await packed(format, "b.jpg", "B")];
    const head = await packed(format, "a.jpg", "", size);
    const file = await open(at("tars/0.tar"), "w");
    await file.write(head, 0, head.length, 0);
    const behind = head.length + Math.ceil(size / 512) * 512;
    await file.write(after, 0, after.length, behind);
    await file.write(huge, 0, 512, behind + after.length);
    await file.close();
    const entries = await all();
    expect(entries.map(({ record }) => [record.id, record.error])).toEqual([
      ["a", undefined],
      ["b", undefined],
    ]);
    expect(entries[0]!.record.member).toMatchObject({ offset: head.length, size });
    expect(entries[1]!.record.member).toMatchObject({ offset: behind + after.length - 512, size: 1 });
    await expectResumable();
  });

  /** One member as GNU tar writes it, without the end of a tar; with `size`, only the headers of a file that is so large. */
  async function packed(format: string, name: string, body: string, size?: number): Promise<Buffer> {
    await writeFile(at(`in/${name}`), body);
    if (size !== undefined) await truncate(at(`in/${name}`), size);
    const tar = `tar --format=${format} -cf - -C "$1" ${name} | head -c 4096`;
    const bytes = execFileSync("sh", ["-c", tar, "sh", at("in")], { stdio: ["ignore", "pipe", "ignore"] });
    const zeros = Buffer.alloc(512);
    let end = 512;
    // pax: the header of the records, the records, then the file's own.
    if (bytes.toString("latin1", 156, 157) === "x") end = 1_536;
    if (size === undefined) end += 512;
    expect(bytes.subarray(end, end + 512)).toEqual(zeros);
    return bytes.subarray(0, end);
  }
});

describe("damage", () => {
  const three = { "a.jpg": "A".repeat(2_000), "b.jpg": "B".repeat(2_000), "c.jpg": "C".repeat(2_000) };

  /** What is left of the tar, cut at every place that matters; another tar follows. */
  test.each([
    [0, [], "breaks off at byte 0"],
    [100, [], "cut off in the header at byte 0"],
    [512, ["a: the tar ends within a.jpg, which begins at byte 512"], null],
    [2_511, ["a: the tar ends within a.jpg"], null],
    [2_512, ["a: ok"], "breaks off at byte 2512"],
    [2_560, ["a: ok"], "breaks off at byte 2560"],
    [2_600, ["a: ok"], "cut off in the header at byte 2560"],
    [7_679, ["a: ok", "b: ok", "c: ok"], "breaks off at byte 7679"],
    [8_192, ["a: ok", "b: ok", "c: ok"], null],
  ])("cut to %i bytes", async (length, samples, message) => {
    await pack("0.tar", three);
    await truncate(at("tars/0.tar"), length);
    await pack("1.tar", { "z.jpg": "Z" });
    const rows = (await records()).map(({ id, error }) => `${id}: ${error?.message ?? "ok"}`);
    expect(rows.pop()).toBe("z: ok");
    if (message !== null) expect(rows.pop()).toMatch(new RegExp(`^0.tar: .*0.tar: .*${message}`));
    expect(rows.map((row, i) => row.slice(0, samples[i]?.length))).toEqual(samples);
    await expectResumable();
  });

  test("a header that is none, tars joined into one, an empty tar", async () => {
    await pack("0.tar", three);
    const tar = await readFile(at("tars/0.tar"));
    tar[2_570]! ^= 1;
    await writeFile(at("tars/0.tar"), tar);
    await pack("1.tar", { "y.jpg": "Y" });
    const one = await readFile(at("tars/1.tar"));
    await writeFile(at("tars/1.tar"), Buffer.concat([one, one]));
    execFileSync("tar", ["-cf", at("tars/2.tar"), "--files-from=/dev/null"]);
    const rows = (await records()).map(({ id, error }) => [id, error?.message]);
    expect(rows).toEqual([
      ["a", undefined],
      ["0.tar", expect.stringContaining("there is no tar header at byte 2560")],
      ["y", undefined],
      ["1.tar", expect.stringContaining("something follows the tar's end at byte 10240")],
    ]);
    await expectResumable();
  });

  test("a tar that changed meanwhile can't be resumed", async () => {
    await pack("0.tar", three);
    const [first] = await all();
    await utimes(at("tars/0.tar"), 1, 1);
    await expect(all(tars(), caption, first!.cursor)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
  });
});

describe("which tars", () => {
  test("a range, with leading zeros or without; one that lacks a tar, or is none", async () => {
    for (const n of ["08", "09", "10", "11"]) await pack(`${n}.tar`, { [`${n}.jpg`]: n });
    const range = (text: string) => inputOf(at(`tars/${text}.tar`));
    const ids = async (text: string) => (await records(range(text))).map(({ id }) => id);
    expect(await ids("{08..10}")).toEqual(["08", "09", "10"]);
    expect(await ids("{10..11}")).toEqual(["10", "11"]);
    expect(await ids("09")).toEqual(["09"]);
    await expectResumable(range("{08..11}"));
    await checkWebdataset(range("{08..11}"), stores, caption);
    for (const [text, code, message] of [
      ["{08..12}", "INPUT_NOT_FOUND", "12.tar does not exist"],
      ["{8..9}", "INPUT_NOT_FOUND", "8.tar does not exist"],
      ["{10..08}", "INVALID_URI", "runs backwards"],
      ["{0..1}{0..1}", "INVALID_URI", "only one range"],
      ["{0..999999}", "INVALID_URI", "more than 100000"],
    ] as const) {
      const refused = { code, message: expect.stringContaining(message) };
      await expect(checkWebdataset(range(text), stores, caption)).rejects.toMatchObject(refused);
    }
  });

  test("a prefix: tars and no images; what img2dataset writes beside them does not count", async () => {
    const store = stores.at(`${at("tars")}/`);
    expect(await kindOfPrefix(store)).toBe("prefix");
    await writeFile(at("tars/00000.parquet"), "p");
    expect(await kindOfPrefix(store)).toBe("parquet");
    await pack("00000.tar", { "a.jpg": "A" });
    await writeFile(at("tars/00000_stats.json"), "{}");
    expect(await kindOfPrefix(store)).toBe("webdataset");
    expect(await records()).toHaveLength(1);
    await writeFile(at("tars/z.JPG"), "an image");
    expect(await kindOfPrefix(store)).toBe("prefix");
  });

  test("what is no tar, has no samples or not what is asked for is refused at once", async () => {
    await pack("0.tar", { README: "nothing" });
    await expect(checkWebdataset(tars(), stores, caption)).rejects.toMatchObject({ code: "INPUT_EMPTY" });
    await pack("0.tar", { "a.jpg": "A", "a.txt": "a" }, "-z");
    await expect(checkWebdataset(tars(), stores, caption)).rejects.toMatchObject({ code: "TAR_INVALID" });
    await pack("0.tar", { "a.jpg": "A", "a.txt": "a", "b.jpg": "B" });
    await checkWebdataset(tars(), stores, itm("txt"));
    await expect(checkWebdataset(tars(), stores, itm("alt"))).rejects.toThrow("no `alt`");
    const keeping = checkWebdataset(tars(["url"]), stores, caption);
    await expect(keeping).rejects.toThrow("none of the first 2 samples has `url`");
  });
});

describe("requests", () => {
  const byteAt = (offset: number) => offset % 251;
  const pattern = Buffer.from(Array.from({ length: 65_536 + 251 }, (_, i) => byteAt(i)));

  /** A store that says what it is asked for. */
  function counted(size: number) {
    const asked: [number, number][] = [];
    const store = {
      uriOf: (key: string) => key,
      async stream(_: string, { range }: { range: { start: number; end: number } }) {
        asked.push([range.start, range.end]);
        const body = (async function* () {
          for (let at = range.start; at < range.end; at += 65_536)
            yield pattern.subarray(at % 251, (at % 251) + Math.min(65_536, range.end - at));
        })();
        return { body, size, etag: "e" };
      },
    } as unknown as Store;
    return { asked, bytes: new TarBytes(store, { key: "k", size, etag: "e" }) };
  }

  test("small files are read through in a few windows, large ones leapt over", async () => {
    const MB = 1024 * 1024;
    const small = counted(200 * MB);
    for (let at = 0; at < 200 * MB; at += 40_960) await small.bytes.read(at, 512);
    expect(small.asked.length).toBeLessThanOrEqual(21);
    const large = counted(200 * MB);
    for (let at = 0; at < 200 * MB; at += 5 * MB) await large.bytes.read(at, 512);
    expect(large.asked).toHaveLength(40);
    expect(large.asked.every(([start, end]) => end - start === 65_536)).toBe(true);
  });

  test("a read across windows is whole, one at the end is short", async () => {
    const { asked, bytes } = counted(300_000);
    const got = await bytes.read(65_000, 200_000);
    const [first, ...starts] = asked;
    expect([got.length, first, starts]).toEqual([
      200_000,
      [65_000, 130_536],
      [
        [130_536, 261_608],
        [261_608, 300_000],
      ],
    ]);
    for (const at of [65_000, 130_535, 130_536, 261_607, 261_608, 264_999]) expect(got[at - 65_000]).toBe(byteAt(at));
    expect(await bytes.read(299_900, 512)).toHaveLength(100);
    expect(await bytes.read(300_000, 512)).toHaveLength(0);
  });
});
