/** What only files have: links, other kinds of files, temporary files, crashes. */
import { execFileSync } from "node:child_process";
import fs, { constants } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { readError, writeError } from "../../src/storage/file-error.ts";
import { listFiles } from "../../src/storage/file-list.ts";
import { FileStore, probeConditionalWrites } from "../../src/storage/index.ts";
import { startWriter } from "./processes.ts";

let folder: string;
let store: FileStore;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-file-"));
  store = new FileStore(folder);
});
afterEach(async () => {
  vi.restoreAllMocks();
  syncBuiltinESMExports();
  await rm(folder, { recursive: true });
});

test.each(["/etc/passwd", "../x", "a/../x", "a/./x", "a//x", "a/", ".", "a/.capfleet-tmp-1"])(
  "the key %j is refused",
  async (key) => {
    const refused = { code: "INVALID_URI", message: expect.stringContaining(key) };
    await expect(store.put(key, "x")).rejects.toMatchObject(refused);
    await expect(store.read(key)).rejects.toMatchObject(refused);
    await expect(store.stat(key)).rejects.toMatchObject(refused);
    await expect(store.delete(key)).rejects.toMatchObject(refused);
    expect(await readdir(folder)).toEqual([]);
  },
);

describe("list", () => {
  test("follows links to files and folders, and not in circles", async () => {
    await writeFile(join(folder, "real.jpg"), "12345");
    await mkdir(join(folder, "sub/deep"), { recursive: true });
    await writeFile(join(folder, "sub/deep/x"), "x");
    await symlink("real.jpg", join(folder, "link.jpg"));
    await symlink("nowhere", join(folder, "dangling"));
    await symlink("itself", join(folder, "itself"));
    await symlink("sub/deep", join(folder, "way-down"));
    await symlink("..", join(folder, "sub/up"));
    await symlink(".", join(folder, "sub/here"));
    expect(await keys()).toEqual(["link.jpg", "real.jpg", "sub/deep/x", "way-down/x"]);
    expect(await store.stat("link.jpg")).toMatchObject({ size: 5 });
    expect((await store.read("way-down/x")).bytes.toString()).toBe("x");
    expect(await store.stat("dangling")).toBeNull();
    await expect(store.read("itself")).rejects.toMatchObject({ code: "OBJECT_NOT_FOUND" });
  });

  test("leaves out what is no file, and nothing waits for it", async () => {
    execFileSync("mkfifo", [join(folder, "pipe")]);
    await mkdir(join(folder, "empty"));
    expect(await keys()).toEqual([]);
    expect(await store.stat("pipe")).toBeNull();
    await expect(store.read("pipe")).rejects.toMatchObject({ code: "OBJECT_NOT_FOUND" });
    await expect(store.stream("empty")).rejects.toMatchObject({ code: "OBJECT_NOT_FOUND" });
  });

  test("of a folder that is a file is empty", async () => {
    await writeFile(join(folder, "x"), "x");
    expect(await keys(new FileStore(join(folder, "x")))).toEqual([]);
  });

  test("reads large folders in passes, and each name once", async () => {
    const names = Array.from({ length: 100 }, (_, i) => `${i}${i % 3 === 0 ? "/x" : ""}`);
    for (const name of names) await store.put(name, "");
    const whole = await keys();
    expect(whole).toHaveLength(100);
    for (const window of [1, 7, 49, 50, 51, 100]) {
      const listed: string[] = [];
      for await (const { key } of listFiles(`${folder}/`, {}, window)) listed.push(key);
      expect(listed).toEqual(whole);
    }
  });

  test("doesn't pass over a name that is not UTF-8", async () => {
    await writeFile(Buffer.concat([Buffer.from(`${folder}/caf`), Buffer.from([0xe9])]), "latin1");
    await expect(keys()).rejects.toMatchObject({ code: "INVALID_URI", message: expect.stringContaining("not UTF-8") });
  });
});

describe("errors", () => {
  test("a folder or a file in the way of a write", async () => {
    await store.put("a/b", "x");
    for (const key of ["a", "a/b/c"]) {
      const refused = { code: "INVALID_URI", message: expect.stringContaining(store.uriOf(key)) };
      await expect(store.put(key, "x")).rejects.toMatchObject(refused);
      await expect(store.putIfAbsent(key, "x")).rejects.toMatchObject(refused);
    }
    expect(await keys()).toEqual(["a/b"]);
    expect(await readdir(folder)).toEqual(["a"]);
  });

  test("a folder without permission", async () => {
    // Root may write anywhere but into the kernel's own file system.
    const isRoot = process.getuid?.() === 0;
    await chmod(folder, 0o500);
    const denied = new FileStore(isRoot ? "/sys/kernel" : folder);
    await expect(denied.put("x", "x")).rejects.toMatchObject({
      code: "STORE_ACCESS_DENIED",
      message: expect.stringContaining(denied.uriOf("x")),
    });
    await chmod(folder, 0o700);
  });

  test.each([
    ["EACCES", "STORE_ACCESS_DENIED"],
    ["EPERM", "STORE_ACCESS_DENIED"],
    ["EROFS", "STORE_ACCESS_DENIED"],
    ["ENOSPC", "STORE_UNAVAILABLE"],
    ["EDQUOT", "STORE_UNAVAILABLE"],
    ["EMFILE", "STORE_UNAVAILABLE"],
    ["EIO", "STORE_UNAVAILABLE"],
    ["ESTALE", "STORE_UNAVAILABLE"],
    ["ENOTDIR", "INVALID_URI", "OBJECT_NOT_FOUND"],
    ["EISDIR", "INVALID_URI", "OBJECT_NOT_FOUND"],
  ])("%s is %s", (code, whenWriting, whenReading = whenWriting) => {
    const error = Object.assign(new Error(`${code}: as the system says`), { code, syscall: "open" });
    expect(writeError(error, "file:///x")).toMatchObject({
      code: whenWriting,
      message: expect.stringContaining("file:///x"),
    });
    expect(readError(error, "file:///x")).toMatchObject({ code: whenReading });
  });

  test("a write that fails leaves no temporary file", async () => {
    const full = Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC", syscall: "fsync" });
    const probe = await fs.promises.open(folder, constants.O_RDONLY);
    vi.spyOn(Object.getPrototypeOf(probe), "sync").mockRejectedValue(full);
    await probe.close();
    await expect(store.put("x", "x")).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    await expect(store.putStream("x", body("x"))).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    expect(await readdir(folder)).toEqual([]);
  });
});

describe("replacing", () => {
  test("makes a version that is later than the one it replaces, even one from the future", async () => {
    await writeFile(join(folder, "x"), "by hand");
    const future = new Date("2200-01-01");
    await fs.promises.utimes(join(folder, "x"), future, future);
    const etag = (await store.stat("x"))!.etag;
    const second = await store.putIfMatch("x", "by-code", etag);
    expect(second).toMatchObject({ outcome: "written" });
    expect((second as { etag: string }).etag).not.toBe(etag);
    expect((await store.stat("x"))!.etag).toBe((second as { etag: string }).etag);
    expect((await fs.promises.stat(join(folder, "x"))).mtimeMs).toBeGreaterThan(future.getTime());
    expect((await fs.promises.stat(join(folder, "x"))).mtimeMs).toBeLessThan(future.getTime() + 1);
  });

  test("takes the place of a link to nowhere", async () => {
    await symlink("nowhere", join(folder, "dangling"));
    expect(await store.putIfAbsent("dangling", "x")).toMatchObject({ outcome: "written" });
    expect((await store.read("dangling")).bytes.toString()).toBe("x");
  });

  test("works where the file system has no hard links", async () => {
    vi.spyOn(fs, "linkSync").mockImplementation(() => {
      throw Object.assign(new Error("EPERM: not permitted, link"), { code: "EPERM", syscall: "link" });
    });
    syncBuiltinESMExports();
    const results = await Promise.all(Array.from({ length: 20 }, (_, i) => store.putIfAbsent("x", `${i}`)));
    expect(fs.linkSync).toHaveBeenCalled();
    const winners = results.flatMap(({ outcome }, i) => (outcome === "written" ? [`${i}`] : []));
    expect(winners).toEqual([(await store.read("x")).bytes.toString()]);
    await store.put("x", "new");
    expect(await readdir(folder)).toEqual(["x"]);
  });

  test("all at once, leaves the last one whole and nothing else", async () => {
    await Promise.all([
      ...Array.from({ length: 20 }, (_, i) => store.put("x", `put ${i}`.repeat(1000))),
      ...Array.from({ length: 5 }, () => store.delete("x")),
    ]);
    await store.put("x", "end");
    expect(await readdir(folder)).toEqual(["x"]);
  });

  test("a writer killed half-way: readers see the old version, the next writer waits and goes on", async () => {
    const etag = await store.put("x", "old");
    const killed = await startWriter("die-in-rename", store.uri, "");
    expect(await killed.finish()).toBe("SIGKILL");
    expect((await readdir(folder)).length).toBeGreaterThan(1);

    expect(await keys()).toEqual(["x"]);
    expect(await store.read("x")).toEqual({ bytes: Buffer.from("old"), etag });
    let clock = 0;
    // The wait is 10 s of this clock; each look at it is 6 s on.
    vi.spyOn(performance, "now").mockImplementation(() => {
      clock += 6_000;
      return clock;
    });
    expect(await store.putIfMatch("x", "new", etag)).toMatchObject({ outcome: "written" });
    expect(clock).toBeGreaterThan(10_000);
    expect(await readFile(join(folder, "x"), "utf8")).toBe("new");
    // The dead writer's temporary file is still there, and nobody minds.
    expect((await readdir(folder)).filter((name) => name !== "x")).toHaveLength(1);
    expect(await keys()).toEqual(["x"]);
  });
});

test("a file that is cut while it is streamed is SOURCE_CHANGED", async () => {
  await store.put("x", Buffer.alloc(1_000_000));
  const { body: chunks } = await store.stream("x");
  const cut = async () => {
    for await (const _ of chunks) fs.truncateSync(join(folder, "x"), 10);
  };
  await expect(cut()).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
});

test("the probe finds conditional writes, and leaves nothing", async () => {
  expect(await probeConditionalWrites(store)).toBe(true);
  expect(await readdir(folder)).toEqual([]);
});

async function keys(of: FileStore = store): Promise<string[]> {
  const all: string[] = [];
  for await (const { key } of of.list()) all.push(key);
  return all;
}

async function* body(text: string) {
  yield Buffer.from(text);
}
