import { randomBytes } from "node:crypto";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { compareKeys, type ListOptions, type ObjectInfo, parseUri, type Store } from "../../src/storage/index.ts";
import { backends } from "./backends.ts";

const NASTY = [
  "with space.jpg",
  " leading and trailing ",
  "ünïcode/日本語.jpg",
  "emoji 😀.jpg",
  "question?.jpg",
  "hash#.jpg",
  "percent%.jpg",
  "percent%20encoded.jpg",
  "plus+plus.jpg",
  "amp&lt;<tag>&.jpg",
  "quote'\".jpg",
  "semi;colon=@$,!*().jpg",
  "back\\slash.jpg",
  "new\nline\ttab.jpg",
  "carriage\rreturn.jpg",
  "control\u0001\u001f\u007f.jpg",
  "dots...jpg",
  ".hidden",
  "~tilde",
  "__proto__",
  "x".repeat(200),
];

/** In the order of their UTF-8 bytes. */
const TRICKY = [
  "A.txt",
  "a",
  "b!",
  "b.txt",
  "b/c",
  "b/c-d",
  "b/d/e",
  "b0",
  "c-/x",
  "c/x",
  "c0/x",
  "e\u0301",
  "z",
  "é",
  "\ud7ff",
  "\ue000",
  "\uff5e",
  "\uff5f/x",
  "\uffee",
  "𐀀",
  "😀",
  "😁/x",
];

describe.each(backends())("$name", (backend) => {
  describe.skipIf(backend.isMissing)("Store", () => {
    let store: Store;
    beforeEach(async () => {
      store = (await backend.open()).store;
    });
    afterAll(() => backend.close());

    test("what was put is read, described, listed and deleted", async () => {
      const etag = await store.put("a/b.txt", "hällo");
      expect(await store.read("a/b.txt")).toEqual({ bytes: Buffer.from("hällo"), etag });
      expect(await store.stat("a/b.txt")).toEqual({ key: "a/b.txt", size: 6, etag });
      expect(await list()).toEqual([{ key: "a/b.txt", size: 6, etag }]);
      await store.delete("a/b.txt");
      expect(await store.stat("a/b.txt")).toBeNull();
      expect(await list()).toEqual([]);
      await store.delete("a/b.txt");
    });

    test("put replaces, with another ETag, also when size and moment are the same", async () => {
      const etags = new Set<string>();
      for (let i = 0; i < 10; i++) etags.add(await store.put("x", `${i}`));
      expect(etags.size).toBe(10);
      expect((await store.read("x")).bytes.toString()).toBe("9");
      await store.put("x", Buffer.alloc(0), { contentType: "text/plain" });
      expect(await store.stat("x")).toMatchObject({ size: 0 });
    });

    test("URIs name the prefix and the object", async () => {
      expect(store.uri.endsWith("/")).toBe(true);
      for (const name of NASTY) {
        const location = parseUri(store.uriOf(name));
        const base = parseUri(store.uri);
        if (location.scheme === "file") expect(location.path).toBe((base.scheme === "file" ? base.path : "") + name);
        else expect(location.key).toBe((base.scheme === "s3" ? base.key : "") + name);
      }
    });

    test("any name survives", async () => {
      for (const name of NASTY) await store.put(name, name);
      expect((await list()).map(({ key }) => key)).toEqual(NASTY.toSorted(compareKeys));
      for (const name of NASTY) {
        expect((await store.read(name)).bytes.toString()).toBe(name);
        expect(await store.stat(name)).toMatchObject({ key: name });
        expect(await keys({ prefix: name })).toEqual([name]);
      }
      for (const name of NASTY) await store.delete(name);
      expect(await list()).toEqual([]);
    });

    test.each(["", "a\0b", "a\ud800"])("the key %j is refused", async (key) => {
      const refused = { code: "INVALID_URI" };
      await expect(store.put(key, "x")).rejects.toMatchObject(refused);
      await expect(store.putIfAbsent(key, "x")).rejects.toMatchObject(refused);
      await expect(store.putStream(key, chunksOf(Buffer.from("x"), 1))).rejects.toMatchObject(refused);
      await expect(store.read(key)).rejects.toMatchObject(refused);
      await expect(store.stat(key)).rejects.toMatchObject(refused);
      await expect(store.delete(key)).rejects.toMatchObject(refused);
    });

    test("a key too long for the store is refused when written", async () => {
      const key = Array(6).fill("x".repeat(400)).join("/");
      await expect(store.put(key, "x")).rejects.toMatchObject({ code: "INVALID_URI" });
    });

    test("a missing object", async () => {
      await store.put("folder/x", "x");
      for (const key of ["missing", "folder", "folder/x/y"]) {
        const missing = { code: "OBJECT_NOT_FOUND", message: expect.stringContaining(store.uriOf(key)) };
        expect(await store.stat(key)).toBeNull();
        await expect(store.read(key)).rejects.toMatchObject(missing);
        await expect(store.stream(key)).rejects.toMatchObject(missing);
        await expect(store.stream(key, { range: { start: 3, end: 3 } })).rejects.toMatchObject(missing);
        await store.delete(key);
      }
      expect(await store.stat("folder/x")).not.toBeNull();
    });

    test("read stops at maxBytes", async () => {
      await store.put("x", "12345");
      expect((await store.read("x", { maxBytes: 5 })).bytes.toString()).toBe("12345");
      await expect(store.read("x", { maxBytes: 4 })).rejects.toMatchObject({
        code: "OBJECT_TOO_LARGE",
        message: `${store.uriOf("x")}: 5 bytes, and the limit is 4`,
      });
    });

    test("an aborted read throws the signal's reason", async () => {
      await store.put("x", randomBytes(300_000));
      const reason = new Error("enough");
      await expect(store.read("x", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
      const control = new AbortController();
      const { body } = await store.stream("x", { signal: control.signal });
      const all = async () => {
        for await (const _ of body) control.abort(reason);
      };
      await expect(all()).rejects.toBe(reason);
    });

    test("streams ranges", async () => {
      const bytes = randomBytes(300_000);
      const etag = await store.put("x", bytes);
      for (const [start, end] of [
        [0],
        [1],
        [0, 1],
        [100, 200_000],
        [299_999],
        [300_000],
        [5, 5],
        [0, 0],
        [200_000, 400_000],
        [300_000, 300_005],
      ]) {
        const range = end === undefined ? { start: start! } : { start: start!, end };
        const streamed = await store.stream("x", { range, ifMatch: etag });
        expect(streamed).toMatchObject({ size: 300_000, etag });
        expect(bytes.subarray(start, end).equals(await whole(streamed.body))).toBe(true);
      }
      expect(bytes.equals(await whole((await store.stream("x")).body))).toBe(true);
      await store.put("empty", "");
      expect(await whole((await store.stream("empty", { range: { start: 0 } })).body)).toHaveLength(0);
      expect(await whole((await store.stream("empty")).body)).toHaveLength(0);
    });

    test("a stream whose source has changed or shrunk is refused", async () => {
      const etag = await store.put("x", "12345");
      await store.put("x", "54321");
      const changed = { code: "SOURCE_CHANGED", message: expect.stringContaining(store.uriOf("x")) };
      await expect(store.stream("x", { ifMatch: etag })).rejects.toMatchObject(changed);
      await expect(store.stream("x", { ifMatch: etag, range: { start: 2 } })).rejects.toMatchObject(changed);
      await expect(store.stream("x", { ifMatch: etag, range: { start: 5 } })).rejects.toMatchObject(changed);
      await expect(store.stream("x", { range: { start: 6 } })).rejects.toMatchObject(changed);
    });

    test("a stream can be left in the middle", async () => {
      await store.put("x", randomBytes(3_000_000));
      for (let i = 0; i < 20; i++) {
        for await (const chunk of (await store.stream("x")).body) {
          expect(chunk.byteLength).toBeGreaterThan(0);
          break;
        }
      }
    });

    test("64 reads at once", async () => {
      const bytes = randomBytes(200_000);
      await store.put("x", bytes);
      const read = await Promise.all(Array.from({ length: 64 }, () => store.read("x")));
      for (const each of read) expect(each.bytes.equals(bytes)).toBe(true);
    });

    test("putIfAbsent writes once", async () => {
      const first = await store.putIfAbsent("a/x", "first");
      expect(first).toEqual({ outcome: "written", etag: (await store.stat("a/x"))?.etag });
      expect(await store.putIfAbsent("a/x", "second")).toEqual({ outcome: "exists" });
      expect((await store.read("a/x")).bytes.toString()).toBe("first");
      await store.delete("a/x");
      expect(await store.putIfAbsent("a/x", "third")).toMatchObject({ outcome: "written" });
    });

    test("of many putIfAbsent at once, one writes", async () => {
      const results = await Promise.all(Array.from({ length: 20 }, (_, i) => store.putIfAbsent("x", `${i}`)));
      const winners = results.flatMap(({ outcome }, i) => (outcome === "written" ? [`${i}`] : []));
      expect(winners).toEqual([(await store.read("x")).bytes.toString()]);
    });

    test("putIfMatch writes over the version it names, and no other", async () => {
      const first = await store.put("x", "1");
      const second = await store.putIfMatch("x", "2", first);
      expect(second).toEqual({ outcome: "written", etag: (await store.stat("x"))?.etag });
      expect(await store.putIfMatch("x", "3", first)).toEqual({ outcome: "changed" });
      expect((await store.read("x")).bytes.toString()).toBe("2");
      await store.delete("x");
      expect(await store.putIfMatch("x", "4", (second as { etag: string }).etag)).toEqual({ outcome: "changed" });
      expect(await store.stat("x")).toBeNull();
      expect(await store.putIfMatch("never/there", "4", first)).toEqual({ outcome: "changed" });
    });

    test("of many putIfMatch at once, one writes", async () => {
      const etag = await store.put("x", "start");
      const results = await Promise.all(Array.from({ length: 20 }, (_, i) => store.putIfMatch("x", `${i}`, etag)));
      const winners = results.flatMap(({ outcome }, i) => (outcome === "written" ? [`${i}`] : []));
      expect(winners).toEqual([(await store.read("x")).bytes.toString()]);
    });

    test.each([0, 1, 6_000_000, 20_000_000])("putStream writes %i bytes", async (size) => {
      const bytes = randomBytes(size);
      expect(await store.putStream("a/x", chunksOf(bytes, 700_001))).toBe(size);
      expect((await store.read("a/x")).bytes.equals(bytes)).toBe(true);
      expect(await list()).toEqual([await store.stat("a/x")]);
    });

    test("a putStream whose body throws leaves the old object, and throws what the body threw", async () => {
      await store.put("x", "old");
      // As a body that is read from a file fails: an error like the store's own, and yet not the store's.
      const broken = Object.assign(new Error("the body broke"), { code: "EACCES", syscall: "read" });
      async function* body() {
        yield randomBytes(9_000_000);
        yield randomBytes(1_000_000);
        throw broken;
      }
      await expect(store.putStream("x", body())).rejects.toBe(broken);
      await expect(store.putStream("y", body())).rejects.toBe(broken);
      expect(await list()).toEqual([await store.stat("x")]);
      expect((await store.read("x")).bytes.toString()).toBe("old");
    });

    describe("list", () => {
      test("of a prefix that doesn't exist is empty", async () => {
        expect(await list()).toEqual([]);
        expect(await list({ prefix: "a/b/c" })).toEqual([]);
        await store.put("a/b", "x");
        expect(await list({ prefix: "a/b/c" })).toEqual([]);
        expect(await list({ prefix: "a/../a/" })).toEqual([]);
      });

      test("is in the order of the UTF-8 bytes of whole keys", async () => {
        await Promise.all(TRICKY.map((key) => store.put(key, key)));
        expect(await keys()).toEqual(TRICKY);
      });

      test("goes on after any key, there or not", async () => {
        await Promise.all(TRICKY.map((key) => store.put(key, key)));
        for (const after of [...TRICKY, "b/", "b/c/", "b/c/zz", "b", "b/zz", "c", "c/", "f", "\u{10ffff}", "0"]) {
          expect([after, await keys({ after })]).toEqual([after, TRICKY.filter((key) => compareKeys(key, after) > 0)]);
        }
      });

      test("filters by prefix, by the character", async () => {
        await Promise.all(TRICKY.map((key) => store.put(key, key)));
        for (const prefix of ["a", "b", "b/", "b/c", "b/d/", "b/d/e", "c", "\uff5e", "😁/", "nothing"]) {
          expect([prefix, await keys({ prefix })]).toEqual([prefix, TRICKY.filter((key) => key.startsWith(prefix))]);
          const after = "b/c";
          const wanted = TRICKY.filter((key) => key.startsWith(prefix) && compareKeys(key, after) > 0);
          expect([prefix, await keys({ prefix, after })]).toEqual([prefix, wanted]);
        }
      });

      test("of 1,100 keys is whole, and can be resumed anywhere", async () => {
        const all = Array.from({ length: 1100 }, (_, i) => `${String(i % 7)}/${String(i).padStart(5, "0")}`).sort();
        for (let i = 0; i < all.length; i += 100)
          await Promise.all(all.slice(i, i + 100).map((key) => store.put(key, "")));
        expect(await keys()).toEqual(all);
        for (const at of [0, 98, 998, 999, 1000, 1098, 1099])
          expect(await keys({ after: all[at]! })).toEqual(all.slice(at + 1));
      });
    });

    async function list(options?: ListOptions): Promise<ObjectInfo[]> {
      return collect(store.list(options));
    }
    async function keys(options?: ListOptions): Promise<string[]> {
      return (await list(options)).map(({ key }) => key);
    }
  });
});

async function whole(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await collect(body));
}

async function* chunksOf(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
