import { readdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Asked } from "../../../../test/support/hub.ts";
import { contents, pick, REPO, repository, UNSUPPORTED, WANTED, World } from "./world.ts";

let world: World;
let files: Record<string, Uint8Array>;
let commit: string;
beforeEach(async () => {
  world = await World.create();
  files = repository();
  commit = world.hub.push({ id: REPO, files });
});
afterEach(() => world.end());

const kinds = () => world.hub.asked.map(({ kind }) => kind);
const ofWeights = ({ kind, name }: Asked) => kind === "lfs" && name === "model.safetensors";
const weightStarts = () => world.hub.asked.filter((asked) => ofWeights(asked) && asked.headers.range !== "bytes=0-0");

test("brings what a checkpoint needs and nothing else, in several pages of a listing", async () => {
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
});

test("takes pickled weights where there are no safetensors", async () => {
  const { "model.safetensors": _, ...rest } = files;
  world.hub.push({ id: REPO, files: rest });
  const names = WANTED.map((name) => (name === "model.safetensors" ? "pytorch_model.bin" : name)).sort();
  expect(Object.keys(await contents(await world.fetch())).sort()).toEqual(names);
});

test("of weights in shards, in two forms, one form is taken", async () => {
  const { "model.safetensors": _, "pytorch_model.bin": __, ...rest } = files;
  const shards = (stem: string, ending: string) => [1, 2].map((n) => `${stem}-0000${n}-of-00002.${ending}`);
  const wanted = [...shards("model", "safetensors"), "model.safetensors.index.json", "merges.txt", "vocab.json"];
  const others = [...shards("pytorch_model", "bin"), "pytorch_model.bin.index.json", "chat_template.json"];
  const more = [...wanted, ...others].map((name) => [name, Buffer.from(name)] as const);
  world.hub.push({ id: REPO, files: { ...rest, ...Object.fromEntries(more) } });
  const kept = WANTED.filter((name) => name !== "model.safetensors");
  expect(Object.keys(await contents(await world.fetch()))).toEqual([...kept, ...wanted].sort());
});

test.each(UNSUPPORTED)("%s: refused by the config alone; nothing else is asked for or kept", async (what, config) => {
  world.hub.push({ id: REPO, files: { ...files, "config.json": Buffer.from(JSON.stringify(config)) } });
  for (let time = 0; time < 2; time++) {
    await expect(world.fetch()).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringMatching(`^${world.hub.url}/${REPO}/config.json: ${what} is not supported`),
    });
  }
  const read = world.hub.asked.filter(({ kind }) => kind === "file" || kind === "lfs").map(({ name }) => name);
  expect(new Set(read)).toEqual(new Set(["config.json"]));
  expect(await world.cached()).toEqual([]);

  // Another commit of the same repository is another matter.
  expect(await contents(await world.fetch(commit))).toEqual(pick(files, WANTED));
});

test("the next start asks which commit it is, and nothing else; a pinned commit is not even asked for", async () => {
  const first = await world.fetch();
  world.hub.asked.length = 0;
  expect(await world.fetch()).toBe(first);
  expect(kinds()).toEqual(["info"]);
  expect(await world.fetch(commit)).toBe(first);
  expect(kinds()).toEqual(["info"]);
});

test("a revision that has moved is another version; the old one stays", async () => {
  const first = await world.fetch();
  const changed = { ...files, "vocab.txt": Buffer.from("c\n") };
  world.hub.push({ id: REPO, files: changed });
  const second = await world.fetch();
  expect(await contents(second)).toEqual(pick(changed, WANTED));
  expect(await contents(first)).toEqual(pick(files, WANTED));
  expect(await world.fetch(commit)).toBe(first);
});

test("files that were listed are read at the listed commit, even if the revision moves meanwhile", async () => {
  world.hub.fault = ({ kind }) => {
    if (kind === "tree" && world.hub.asked.filter((asked) => asked.kind === "tree").length === 1) {
      world.hub.push({ id: REPO, files: { ...files, "vocab.txt": Buffer.from("other\n") } });
    }
    return null;
  };
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
});

test("a connection that is cut again and again is taken up where it broke", async () => {
  world.hub.fault = (asked) => (ofWeights(asked) ? { cutAfter: 800_000 } : null);
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
  const starts = weightStarts().map(({ start }) => start);
  expect(starts.length).toBeGreaterThanOrEqual(4);
  expect(starts).toEqual(starts.toSorted((a, b) => a - b));
  expect(new Set(starts).size).toBe(starts.length);
});

test("a silent connection is given up and taken up again", async () => {
  let held = 0;
  world.hub.fault = (asked) => (ofWeights(asked) && held++ < 2 ? { holdAfter: 1_000_000 } : null);
  const folder = await world.fetch(null, { ...world.settings(), stallMs: 300 });
  expect(await contents(folder)).toEqual(pick(files, WANTED));
  expect(weightStarts().at(-1)!.start).toBeGreaterThan(0);
});

test("a server that ignores ranges costs a second download, not a wrong file", async () => {
  let cut = 0;
  world.hub.fault = (asked) => {
    if (!ofWeights(asked) || asked.headers.range === "bytes=0-0") return null;
    return cut++ === 0 ? { cutAfter: 800_000 } : { noRange: true };
  };
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
});

test.each(["model.safetensors", "vocab.txt"])("%s with a wrong byte is refused and not cached", async (name) => {
  world.hub.fault = (asked) =>
    asked.name === name && asked.headers.range !== "bytes=0-0" ? { wrongBytes: true } : null;
  await expect(world.fetch()).rejects.toMatchObject({
    code: "DOWNLOAD_CORRUPT",
    message: expect.stringContaining(name),
  });
  expect((await world.cached()).filter((each) => !each.startsWith("."))).toEqual([]);
  world.hub.fault = () => null;
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
});

test("a partial file that a crash has damaged is noticed and downloaded again", async () => {
  world.hub.fault = ({ kind, name }) => (kind === "file" && name === "model.safetensors" ? { status: 404 } : null);
  await expect(world.fetch()).rejects.toMatchObject({ code: "HUB_NOT_FOUND" });
  const [partial] = (await world.cached()).filter((name) => name.startsWith(".partial-"));
  const weights = join(world.cache, "checkpoints", partial!, "model.safetensors");
  await writeFile(weights, Buffer.alloc(1_000_000));
  world.hub.fault = () => null;
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
  expect(weightStarts().map(({ start }) => start)).toEqual([1_000_000, 0]);
});

test("a cached checkpoint that lacks a file or a part of one is downloaded again", async () => {
  const folder = await world.fetch();
  await rm(join(folder, "vocab.txt"));
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
  await truncate(join(folder, "model.safetensors"), 17);
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
  expect((await world.cached()).filter((name) => name.startsWith("."))).toEqual([]);
});

test("the hub is away: the version that it had last is used, and a note says so", async () => {
  const folder = await world.fetch();
  world.hub.fault = () => ({ status: 503 });
  expect(await world.fetch()).toBe(folder);
  expect(world.notes.join()).toContain(commit);
  await expect(world.fetch("v2")).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
});

test("HF_HUB_OFFLINE: nothing is asked", async () => {
  const offline = world.settings({ HF_HUB_OFFLINE: "1" });
  await expect(world.fetch(null, offline)).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
  const folder = await world.fetch();
  world.hub.asked.length = 0;
  expect(await world.fetch(null, offline)).toBe(folder);
  expect(world.hub.asked).toEqual([]);
});

test("a private model needs HF_TOKEN, which goes to the hub and not to its storage", async () => {
  world.hub.push({ id: REPO, files, token: "hf_right" });
  await expect(world.fetch()).rejects.toMatchObject({
    code: "HUB_ACCESS_DENIED",
    message: expect.stringContaining("HF_TOKEN"),
  });
  const wrong = world.settings({ HF_TOKEN: "hf_wrong" });
  await expect(world.fetch(null, wrong)).rejects.toMatchObject({ code: "HUB_ACCESS_DENIED" });
  await world.fetch(null, world.settings({ HF_TOKEN: "hf_right" }));
  const tokens = (kind: Asked["kind"]) =>
    world.hub.asked.filter((asked) => asked.kind === kind).at(-1)!.headers.authorization;
  expect(tokens("file")).toBe("Bearer hf_right");
  expect(tokens("lfs")).toBeUndefined();
});

test("a gated model says that its terms have to be accepted", async () => {
  world.hub.push({ id: REPO, files, gated: true });
  await expect(world.fetch()).rejects.toMatchObject({
    code: "HUB_ACCESS_DENIED",
    message: expect.stringContaining("terms"),
  });
});

test("what is not there is not there", async () => {
  await expect(world.fetch("no-such-branch")).rejects.toMatchObject({ code: "HUB_NOT_FOUND" });
  const { "config.json": _, ...rest } = files;
  world.hub.push({ id: REPO, files: rest });
  await expect(world.fetch()).rejects.toMatchObject({ code: "MODEL_INVALID" });
  expect(await world.cached()).toEqual([]);
});

test("a hub that stays away while files are read: the error names it, and what has arrived is kept", async () => {
  let weights = 0;
  world.hub.fault = (asked) => {
    if (!ofWeights(asked)) return null;
    return weights++ === 1 ? { cutAfter: 500_000 } : weights > 2 ? { status: 503 } : null;
  };
  await expect(world.fetch()).rejects.toMatchObject({
    code: "HUB_UNREACHABLE",
    message: expect.stringContaining("503"),
  });
  const [partial] = (await world.cached()).filter((name) => name.startsWith(".partial-"));
  expect(await readdir(join(world.cache, "checkpoints", partial!))).toContain("model.safetensors");
  world.hub.fault = () => null;
  world.hub.asked.length = 0;
  expect(await contents(await world.fetch())).toEqual(pick(files, WANTED));
  expect(weightStarts()[0]!.start).toBeGreaterThan(0);
}, 60_000);

test.each([
  ["HF_ENDPOINT", "huggingface.co"],
  ["HF_TOKEN", "secret"],
])("%s=%s is refused without being repeated", (name, value) => {
  expect(() => world.settings({ [name]: value })).toThrowError(
    expect.objectContaining({ code: "INVALID_CONFIG", message: expect.not.stringContaining(value) }),
  );
});

test("a hub that is nowhere", async () => {
  const settings = { ...world.settings(), endpoint: "http://127.0.0.1:1" };
  await expect(world.fetch(null, settings)).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
});
