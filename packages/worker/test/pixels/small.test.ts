import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { smallJpegs } from "../../../../test/support/images/index.ts";
import { decodeTo } from "./fixture.ts";

test("the benchmarks' images are valid, all different, and the same for the same seed", async () => {
  const dir = await mkdtemp(join(tmpdir(), "capfleet-small-"));
  const write = async (seed: number) => {
    const names = await smallJpegs(dir, 20, seed);
    return Promise.all(names.map((name) => readFile(join(dir, name))));
  };
  const [first, again, other] = [await write(1), await write(1), await write(2)];
  await rm(dir, { recursive: true });
  expect(again).toEqual(first);
  const pixels = await Promise.all([...first, ...other].map((bytes) => decodeTo({ width: 16, height: 16 }, bytes)));
  expect(new Set(pixels.map((buffer) => buffer.toString("base64"))).size).toBe(40);
});
