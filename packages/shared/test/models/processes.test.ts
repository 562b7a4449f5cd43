/** Real processes that share a cache: killed in the middle, and at it at the same time. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Asked } from "../../../../test/support/hub.ts";
import { until } from "../../../../test/support/processes.ts";
import { mount, unmount, whyNoSmallDisk } from "./small-disk.ts";
import { BIG, contents, pick, REPO, repository, WANTED, World } from "./world.ts";

let world: World;
let files: Record<string, Uint8Array>;
beforeEach(async () => {
  world = await World.create();
  files = repository();
  world.hub.push({ id: REPO, files });
});
afterEach(() => world.end());

const ofWeights = ({ kind, name, headers }: Asked) =>
  kind === "lfs" && name === "model.safetensors" && headers.range !== "bytes=0-0";
const weightStarts = () => world.hub.asked.filter(ofWeights).map(({ start }) => start);
const folderIn = (line: string) => line.replace(/^folder /, "");

test("killed in mid-download: nothing is in the cache, and the next process goes on where it stopped", async () => {
  world.hub.fault = (asked) => (ofWeights(asked) ? { holdAfter: 2_000_000 } : null);
  const killed = world.start(REPO);
  await until("most of the weights", () => killed.received > 1_900_000);
  await killed.kill();
  expect((await world.cached()).filter((name) => /^[0-9a-f]/.test(name))).toEqual([]);

  world.hub.fault = () => null;
  const next = world.start(REPO);
  expect(await contents(folderIn(await next.end()))).toEqual(pick(files, WANTED));
  expect(weightStarts()[1]).toBeGreaterThan(1_900_000);
  expect((await world.cached()).filter((name) => name.startsWith("."))).toEqual([]);
});

test("killed again and again, at any moment: it comes to an end and nothing is wrong", async () => {
  let cut = 0;
  world.hub.fault = (asked) => (ofWeights(asked) ? { holdAfter: 400_000 * ++cut } : null);
  for (const enough of [1, 300_000, 900_000]) {
    const killed = world.start(REPO);
    await until("some bytes", () => killed.received >= enough);
    await killed.kill();
  }
  world.hub.fault = () => null;
  expect(await contents(folderIn(await world.start(REPO).end()))).toEqual(pick(files, WANTED));
}, 60_000);

test("two at once: both have it, and it is downloaded once", async () => {
  world.hub.fault = (asked) => (ofWeights(asked) ? { holdAfter: 1_000_000 } : null);
  const one = world.start(REPO);
  await until("the first to be at it", () => one.received > 900_000);
  const two = world.start(REPO);
  await until("the second to wait", () => two.lines.some((line) => line.startsWith("note another process")));
  world.hub.fault = () => null;
  world.hub.release();
  const [first, second] = await Promise.all([one.end(), two.end()]);
  expect(first).toMatch(/^folder /);
  expect(second).toBe(first);
  expect(await contents(folderIn(first))).toEqual(pick(files, WANTED));
  expect(weightStarts().filter((start) => start === 0)).toHaveLength(1);
});

test("the one that downloads is killed: the one that waits takes over", async () => {
  world.hub.fault = (asked) => (ofWeights(asked) ? { holdAfter: 1_000_000 } : null);
  const one = world.start(REPO);
  await until("the first to be at it", () => one.received > 900_000);
  const two = world.start(REPO);
  await until("the second to wait", () => two.lines.some((line) => line.startsWith("note another process")));
  world.hub.fault = () => null;
  await one.kill();
  expect(await contents(folderIn(await two.end()))).toEqual(pick(files, WANTED));
  expect(weightStarts()[1]).toBeGreaterThan(900_000);
});

test("one that stood still is overtaken, and goes on without harm", async () => {
  world.hub.fault = (asked) => (ofWeights(asked) ? { holdAfter: 1_000_000 } : null);
  const one = world.start(REPO);
  await until("the first to be at it", () => one.received > 900_000);
  one.signal("SIGSTOP");
  world.hub.fault = () => null;
  const two = world.start(REPO);
  const folder = await two.end();
  one.signal("SIGCONT");
  world.hub.release();
  expect(await one.end()).toBe(folder);
  expect(await contents(folderIn(folder))).toEqual(pick(files, WANTED));
});

const noDisk = whyNoSmallDisk();
test.skipIf(noDisk !== null)(`a full disk${noDisk === null ? "" : ` (skipped: ${noDisk})`}`, async () => {
  const folder = join(world.folder, "disk");
  await mkdir(folder);
  // A little more room than the model needs.
  expect(mount(folder, BIG + 1_000_000)).toBe(0);
  try {
    const cache = join(folder, "cache");
    const env = { CAPFLEET_CACHE: cache };
    // Not enough from the start: said before any of the weights is written.
    const asked = () => world.hub.asked.filter(ofWeights).length;
    await writeFile(join(folder, "filler"), Buffer.alloc(2_000_000));
    const refused = await world.start(REPO, env).end();
    expect(refused).toMatch(/^error DISK_FULL /);
    expect(refused).toContain(cache);
    expect(asked()).toBe(0);

    // Somebody else fills it meanwhile.
    await writeFile(join(folder, "filler"), "");
    world.hub.fault = (request) => (ofWeights(request) ? { holdAfter: 1_000_000 } : null);
    const overtaken = world.start(REPO, env);
    await until("a third of the weights", () => overtaken.received > 900_000);
    await writeFile(join(folder, "filler"), Buffer.alloc(4_000_000)).catch(() => {});
    world.hub.fault = () => null;
    world.hub.release();
    const full = await overtaken.end();
    expect(full).toMatch(/^error DISK_FULL /);
    expect(full).toContain(cache);

    await writeFile(join(folder, "filler"), "");
    expect(await contents(folderIn(await world.start(REPO, env).end()))).toEqual(pick(files, WANTED));
  } finally {
    unmount(folder);
  }
});

test("a cache that can't be written says so", async () => {
  const inTheWay = join(world.folder, "file");
  await writeFile(inTheWay, "");
  expect(await world.start(REPO, { CAPFLEET_CACHE: inTheWay }).end()).toMatch(/^error INVALID_CONFIG CAPFLEET_CACHE/);
});
