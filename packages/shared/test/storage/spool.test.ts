import { mkdtemp, readdir, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Spool } from "../../src/storage/index.ts";

test("bytes come back from where they were put, in any order, and as a whole", async () => {
  const spool = await Spool.open();
  const pieces = Array.from({ length: 50 }, (_, n) => Buffer.alloc(n * 10_000, n));
  const places = await Promise.all(pieces.map((piece) => spool.append(piece)));
  for (const [n, place] of [...places.entries()].reverse()) {
    expect((await spool.read(place)).equals(pieces[n]!)).toBe(true);
  }
  expect(Buffer.concat(await Array.fromAsync(spool.chunks())).equals(Buffer.concat(pieces))).toBe(true);
  await spool.close();
  await expect(spool.append(Buffer.from("late"))).rejects.toThrow();
});

test("the file has no name, so that nothing is left of it by a process that is killed", async () => {
  const folder = await mkdtemp(join(tmpdir(), "capfleet-spool-"));
  const spool = await inFolder(folder, () => Spool.open());
  await spool.append(Buffer.alloc(1_000));
  expect(await readdir(folder)).toEqual([]);
  const open = await readdir("/proc/self/fd");
  const targets = await Promise.all(open.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => "")));
  expect(targets.filter((target) => target.includes(".capfleet-spool-") && target.endsWith("(deleted)"))).toHaveLength(
    1,
  );
  await spool.close();
  await rm(folder, { recursive: true });
});

test("a folder that can't be written says so with a code", async () => {
  const opened = inFolder("/proc/nowhere", () => Spool.open());
  await expect(opened).rejects.toMatchObject({ code: expect.stringMatching(/^(STORE|OBJECT)_/) });
});

/** With another folder for temporary files. */
async function inFolder<T>(folder: string, work: () => Promise<T>): Promise<T> {
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder;
  try {
    return await work();
  } finally {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  }
}
