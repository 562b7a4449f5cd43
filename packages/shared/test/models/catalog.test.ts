import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { BUNDLED_MODELS } from "../../src/config.ts";
import {
  choosePrecision,
  fetchModel,
  findLocalModel,
  findModel,
  parseDevice,
  registeredModels,
  registerModel,
  sourceOf,
} from "../../src/models/index.ts";
import { type Store, Stores } from "../../src/storage/index.ts";
import { REPO, repository, World } from "./world.ts";

let world: World;
let state: Store;
beforeEach(async () => {
  world = await World.create();
  state = new Stores().at(join(world.folder, "state"));
});
afterEach(async () => {
  delete process.env.HF_ENDPOINT;
  await world.end();
});

const hub = () => {
  world.hub.push({ id: REPO, files: repository() });
  process.env.HF_ENDPOINT = world.hub.url;
};

test("what a source means", async () => {
  const folder = join(world.folder, "owner", "name");
  await mkdir(join(folder, ".."), { recursive: true });
  await cp(join(BUNDLED_MODELS, "demo-vqa"), folder, { recursive: true });
  expect(sourceOf("demo-vqa")).toMatchObject({ kind: "folder", name: "demo-vqa" });
  expect(sourceOf(folder)).toEqual({ kind: "folder", name: "name", folder });
  expect(sourceOf(`${pathToFileURL(folder).href}/`)).toEqual({ kind: "folder", name: "name", folder });
  expect(sourceOf("s3://bucket/models/blip-base/")).toMatchObject({ kind: "bucket", name: "blip-base" });
  expect(sourceOf("s3://bucket")).toMatchObject({ kind: "bucket", name: "bucket" });
  expect(sourceOf("owner/name")).toEqual({ kind: "hub", name: "owner/name", repo: "owner/name", revision: null });
  expect(sourceOf("owner/name@refs/pr/1")).toMatchObject({ kind: "hub", repo: "owner/name", revision: "refs/pr/1" });
  expect(sourceOf("blip-base")).toEqual({ kind: "name", name: "blip-base" });
  for (const other of [
    "./demo-vqa",
    "../name",
    "./owner/name",
    "/owner/name",
    "owner/../name",
    "a/b/c",
    "owner/name@",
    "",
  ]) {
    expect(sourceOf(other)).toMatchObject({ kind: "name" });
  }
});

test("a folder that is there goes before the hub", async () => {
  const before = process.cwd();
  await mkdir(join(world.folder, "owner"));
  await cp(join(BUNDLED_MODELS, "demo-vqa"), join(world.folder, "owner", "name"), { recursive: true });
  process.chdir(world.folder);
  try {
    expect(sourceOf("owner/name")).toMatchObject({ kind: "folder" });
  } finally {
    process.chdir(before);
  }
});

test("a hub model is called by its id, also by those who are given its cached folder", async () => {
  hub();
  const model = await findLocalModel(REPO, "int8", world.config);
  expect(model).toMatchObject({ ref: { model: REPO, precision: "int8" }, tasks: ["caption"], maxNewTokens: 64 });
  expect(await findLocalModel(model.folder!, "int8", world.config)).toEqual(model);
});

test("a registered hub model is not downloaded, and its name makes no folder", async () => {
  hub();
  const model = await findLocalModel(REPO, "int8", world.config);
  await registerModel(model, state);
  expect(await readdir(join(world.folder, "state", "models"))).toEqual(["somebody%2Fblip-small.json"]);
  world.hub.asked.length = 0;
  expect(await findModel(REPO, null, state, world.config)).toEqual({ ...model, folder: null });
  expect(world.hub.asked).toEqual([]);
});

test("one name, an engine per precision; without one it is what was registered last", async () => {
  const each = async (precision: "fp32" | "int8") => ({
    ...(await findLocalModel("demo-caption", precision, world.config)),
    ref: { ...(await findLocalModel("demo-caption", precision, world.config)).ref, model: "blip" },
  });
  const [fp32, int8] = [await each("fp32"), await each("int8")];
  await registerModel(int8, state);
  await registerModel(fp32, state);
  expect((await findModel("blip", "int8", state, world.config)).ref).toEqual(int8.ref);
  expect((await findModel("blip", null, state, world.config)).ref).toEqual(fp32.ref);
  await registerModel(int8, state);
  expect((await findModel("blip", null, state, world.config)).ref).toEqual(int8.ref);
  expect(await registeredModels("blip", state)).toHaveLength(2);
  await expect(findModel("blip", "fp16", state, world.config)).rejects.toMatchObject({
    code: "MODEL_NOT_FOUND",
    message: expect.stringContaining("fp32, int8"),
  });
});

test("a folder's precision is the one that workers run; a registration of something else does not count", async () => {
  const find = async () => (await findModel("demo-caption", null, state, world.config)).ref.precision;
  expect(await find()).toBe("int8");
  const fp32 = await findLocalModel("demo-caption", "fp32", world.config);
  await registerModel(fp32, state);
  expect(await find()).toBe("fp32");
  const other = { ...fp32, ref: { ...fp32.ref, digest: "0123456789abcdef", precision: "fp16" as const } };
  await registerModel(other, state);
  expect(await find()).toBe("fp32");
});

test("workers that register at the same moment are all registered", async () => {
  const model = await findLocalModel("demo-caption", "fp32", world.config);
  const all = (["fp32", "fp16", "int8"] as const).map((precision) => ({ ...model, ref: { ...model.ref, precision } }));
  await Promise.all([...all, ...all].map((each) => registerModel(each, state)));
  const found = (await registeredModels("demo-caption", state)).map(({ ref }) => ref.precision);
  expect(found.sort()).toEqual(["fp16", "fp32", "int8"]);
});

test("a registration that another version wrote is none, and is replaced", async () => {
  await state.put("models/demo-caption.json", '{"ref":1}');
  expect(await registeredModels("demo-caption", state)).toEqual([]);
  await registerModel(await findLocalModel("demo-caption", "fp32", world.config), state);
  expect(await registeredModels("demo-caption", state)).toHaveLength(1);
});

test("4 bits are for large language models, and refused before a job is made of them", async () => {
  const refused = { code: "INVALID_OPTION", message: expect.stringMatching(/^demo-vqa .*int4.*fp32, fp16, int8/) };
  await expect(findLocalModel("demo-vqa", "int4", world.config)).rejects.toMatchObject(refused);
  await expect(findModel("demo-vqa", "int4", state, world.config)).rejects.toMatchObject(refused);

  const folder = join(world.folder, "blip2");
  await cp(join(BUNDLED_MODELS, "demo-vqa"), folder, { recursive: true });
  await writeFile(join(folder, "config.json"), '{"architectures":["Blip2ForConditionalGeneration"]}');
  const model = await findLocalModel(folder, "int4", world.config);
  expect(model).toMatchObject({ ref: { precision: "int4" }, tasks: ["caption", "vqa"], maxNewTokens: 2016 });
  await registerModel(model, state);
  expect((await findModel(folder, null, state, world.config)).ref).toEqual(model.ref);
});

test("a checkpoint that nothing here can use is refused wherever it is, also one that is in the cache", async () => {
  hub();
  const { folder } = await fetchModel(REPO, world.config);
  const asItWas = await readFile(join(folder, "config.json"), "utf8");
  await writeFile(join(folder, "config.json"), asItWas.replace("Blip", "Flip"));
  for (const given of [REPO, folder]) {
    await expect(fetchModel(given, world.config)).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringContaining("FlipForConditionalGeneration"),
    });
  }
});

test("what is no model says what was looked for", async () => {
  await expect(fetchModel("no-such-model", world.config)).rejects.toMatchObject({ code: "MODEL_NOT_FOUND" });
  await expect(fetchModel("file:///no/such/folder/", world.config)).rejects.toMatchObject({ code: "MODEL_NOT_FOUND" });
  await expect(findModel("no-such-model", "fp32", state, world.config)).rejects.toMatchObject({
    code: "MODEL_NOT_FOUND",
  });
});

test("devices, and the precision that goes with each", () => {
  expect(parseDevice("cpu")).toEqual({ provider: "cpu", id: 0 });
  expect(parseDevice("cuda")).toEqual({ provider: "cuda", id: 0 });
  expect(parseDevice("cuda:3")).toEqual({ provider: "cuda", id: 3 });
  for (const given of ["", "gpu", "cuda:", "cuda:x", "cpu:1", "CUDA", "cuda:-1"]) {
    expect(() => parseDevice(given)).toThrowError(expect.objectContaining({ code: "INVALID_OPTION" }));
  }
  expect(choosePrecision("cpu")).toBe("int8");
  expect(choosePrecision("cuda:1")).toBe("fp16");
  expect(choosePrecision("cuda", "fp32")).toBe("fp32");
  for (const precision of ["int8", "int4"] as const) {
    expect(choosePrecision("cpu", precision)).toBe(precision);
    const refused = { code: "INVALID_OPTION", message: expect.stringMatching(`^${precision} .*CPU only; on cuda:1`) };
    expect(() => choosePrecision("cuda:1", precision)).toThrowError(expect.objectContaining(refused));
  }
});
