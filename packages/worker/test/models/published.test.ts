import { readdir } from "node:fs/promises";
import { findLocalModel, type Model } from "@capfleet/shared/models";
import { type Store, Stores } from "@capfleet/shared/storage";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { backends } from "../../../shared/test/storage/backends.ts";
import { prepareEngine } from "../../src/models/prepare.ts";
import { publishEngine, pullEngine } from "../../src/models/published.ts";
import { sumsIn, World } from "./world.ts";

const s3 = backends().find(({ name }) => name === "S3")!;
afterAll(() => s3.close());

describe.skipIf(s3.isMissing)("compiled engines in S3", () => {
  let world: World;
  let engines: Store;
  let stores: Stores;
  let env: Record<string, string>;
  let model: Model;
  /** The engine, compiled in the cache "one". */
  let compiled: string;
  beforeEach(async () => {
    world = await World.create();
    const { store, config } = await s3.open();
    engines = store;
    stores = new Stores(JSON.parse(config));
    env = { CAPFLEET_STORES: config };
    model = await findLocalModel("demo-caption", "int8", world.config("one"));
    compiled = (await prepareEngine(model, world.config("one"), stores, {})).folder;
  });
  afterEach(async () => {
    stores.close();
    await world.end();
  });

  const fleet = (cache: string) => world.config(cache, { CAPFLEET_ENGINES: engines.uri });
  const keys = async () =>
    (await Array.fromAsync(engines.list())).map(({ key }) => key.replace(`${model.ref.digest}/`, ""));

  test("a worker downloads what another has published, the very same files, and compiles nothing", async () => {
    const before = await prepareEngine(model, fleet("two"), stores, {});
    expect(before.how).toBe("compiled");
    expect(await publishEngine(compiled, model.ref, engines, {})).toBe(true);
    const after = await prepareEngine(model, fleet("three"), stores, {});
    expect(after.how).toBe("downloaded");
    expect(await sumsIn(after.folder)).toEqual(await sumsIn(compiled));
    expect((await prepareEngine(model, fleet("three"), stores, {})).how).toBe("cached");
  });

  test("two processes publish at once, and two pull at once", async () => {
    const publish = () => world.models(["publish", "demo-caption", engines.uri, "--precision", "int8"], env);
    const published = await Promise.all([publish(), publish()]);
    const uri = engines.uriOf(`${model.ref.digest}/`);
    expect(published.map(({ code, stdout }) => [code, stdout])).toEqual(Array(2).fill([0, `${uri}\n`]));

    const pull = () => world.models(["pull", uri], { ...env, CAPFLEET_CACHE: world.path("two") });
    const pulled = await Promise.all([pull(), pull()]);
    const folder = world.path(`two/engines/${model.ref.digest}`);
    expect(pulled.map(({ code, stdout }) => [code, stdout])).toEqual(Array(2).fill([0, `${folder}\n`]));
    expect(await sumsIn(folder)).toEqual(await sumsIn(compiled));
    expect(await readdir(world.path("two/engines"))).toEqual([model.ref.digest]);
  });

  test("publishing again uploads nothing and says so", async () => {
    await publishEngine(compiled, model.ref, engines, {});
    const before = await keys();
    const progress = vi.fn();
    expect(await publishEngine(compiled, model.ref, engines, { progress })).toBe(false);
    expect(progress).not.toHaveBeenCalled();
    expect(await keys()).toEqual(before);
    expect(before.at(-1)).toBe("manifest.json");
  });

  test("an upload that was interrupted is no engine yet, and goes on", async () => {
    await publishEngine(compiled, model.ref, engines, {});
    const [first] = await keys();
    await engines.delete(`${model.ref.digest}/manifest.json`);
    await engines.delete(`${model.ref.digest}/${first}`);
    expect(await pullEngine(model.ref.digest, engines, world.path("x"), {})).toBeNull();
    expect((await prepareEngine(model, fleet("two"), stores, {})).how).toBe("compiled");
    expect(await publishEngine(compiled, model.ref, engines, {})).toBe(true);
    await pullEngine(model.ref.digest, engines, world.path("x"), {});
    expect(await sumsIn(world.path("x"))).toEqual(await sumsIn(compiled));
  });

  test("a file that is not what the manifest says is refused; the worker compiles, and says why", async () => {
    await publishEngine(compiled, model.ref, engines, {});
    const file = (await keys()).find((key) => key.startsWith("files/"))!;
    const key = `${model.ref.digest}/${file}`;
    const { bytes } = await engines.read(key);
    bytes[0]! ^= 1;
    await engines.put(key, bytes);
    const pulling = pullEngine(model.ref.digest, engines, world.path("x"), {});
    await expect(pulling).rejects.toMatchObject({ code: "DOWNLOAD_CORRUPT" });
    expect(await readdir(world.folder)).not.toContain("x");
    const { how, folder } = await prepareEngine(model, fleet("two"), stores, { note: world.note });
    expect(how).toBe("compiled");
    expect(world.notes.join()).toContain("DOWNLOAD_CORRUPT");
    expect(await sumsIn(folder)).toEqual(await sumsIn(compiled));
  });

  test.each(["{}", '{"schema":1,"files":[{"name":"../x","size":1,"sha256":"00"}]}'])(
    "the manifest %s",
    async (text) => {
      await engines.put(`${model.ref.digest}/manifest.json`, text);
      const pulling = pullEngine(model.ref.digest, engines, world.path("x"), {});
      await expect(pulling).rejects.toMatchObject({
        code: "DOWNLOAD_CORRUPT",
        message: expect.stringContaining("manifest"),
      });
    },
  );

  test("published engines that can't be reached keep no worker from working", async () => {
    const away = new Stores([
      { ...JSON.parse(env.CAPFLEET_STORES!)[0], endpoint: "http://127.0.0.1:1", timeoutMs: 500 },
    ]);
    const { how } = await prepareEngine(model, fleet("two"), away, { note: world.note });
    expect(how).toBe("compiled");
    expect(world.notes.join()).toContain("STORE_UNAVAILABLE");
  });
});
