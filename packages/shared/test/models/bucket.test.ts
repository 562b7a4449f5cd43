import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { BucketModel } from "../../src/models/bucket.ts";
import type { Store } from "../../src/storage/index.ts";
import { backends } from "../storage/backends.ts";
import { contents, pick, repository, UNSUPPORTED, WANTED, World } from "./world.ts";

const s3 = backends().find(({ name }) => name === "S3")!;
afterAll(() => s3.close());

describe.skipIf(s3.isMissing)("a checkpoint in S3", () => {
  let world: World;
  let store: Store;
  let config: string;
  let files: Record<string, Uint8Array>;
  beforeEach(async () => {
    world = await World.create();
    ({ store, config } = await s3.open());
    files = repository();
    for (const [name, bytes] of Object.entries(files)) await store.put(name, bytes);
  });
  afterEach(() => world.end());

  test("two processes fetch it at once", async () => {
    const env = { CAPFLEET_STORES: config };
    const [one, two] = [world.start(store.uri, env), world.start(store.uri, env)];
    const found = await one.end();
    expect(found).toMatch(/^folder /);
    expect(await two.end()).toBe(found);
    expect(await contents(found.replace(/^folder /, ""))).toEqual(pick(files, WANTED));
  });

  test.each(UNSUPPORTED)("%s: refused by the config alone; no other object is read", async (what, unsupported) => {
    await store.put("config.json", JSON.stringify(unsupported));
    const read = vi.spyOn(store, "stream");
    await expect(world.fetchFrom(new BucketModel(store))).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringMatching(`^${store.uri}config.json: ${what} is not supported`),
    });
    expect(read.mock.calls.map(([key]) => key)).toEqual(["config.json"]);
    expect(await world.cached()).toEqual([]);
  });

  test("another file in place of one is another version", async () => {
    const first = await world.fetchFrom(new BucketModel(store));
    expect(await world.fetchFrom(new BucketModel(store))).toBe(first);
    const changed = { ...files, "vocab.txt": Buffer.from("b\na\n") };
    await store.put("vocab.txt", changed["vocab.txt"]!);
    const second = await world.fetchFrom(new BucketModel(store));
    expect(second).not.toBe(first);
    expect(await contents(second)).toEqual(pick(changed, WANTED));
  });

  test("an object that changes while the others are read does not get into the cache", async () => {
    const remote = new BucketModel(store);
    const version = await remote.version();
    const listed = await remote.files(version);
    await store.put("vocab.txt", "b\na\n");
    const moved = { id: remote.id, asked: null, pinned: null, version: async () => version, files: async () => listed };
    await expect(world.fetchFrom(moved)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
    expect((await world.cached()).filter((name) => !name.startsWith("."))).toEqual([]);
  });

  test("the store is away: the version that was there last is used", async () => {
    const folder = await world.fetchFrom(new BucketModel(store));
    const away = config.replace(/"endpoint":"[^"]*"/, '"endpoint":"http://127.0.0.1:1"');
    const given = world.start(store.uri, { CAPFLEET_STORES: away });
    expect(await given.end()).toBe(`folder ${folder}`);
    expect(given.lines.join()).toContain("cached");
  }, 60_000);

  test("a prefix without a checkpoint", async () => {
    const given = world.start(`${store.uri}${randomUUID()}/`, { CAPFLEET_STORES: config });
    expect(await given.end()).toMatch(/^error MODEL_NOT_FOUND .*config\.json/);
  });
});
