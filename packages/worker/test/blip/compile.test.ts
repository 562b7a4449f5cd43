import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { cp, mkdir, open, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { compileEngine, ensureEngine, loadEngine } from "../../src/blip/index.ts";
import { editJson, editTensors, Folder, headerLength, ref, type TestTensor } from "./checkpoints.ts";

const CASE = "pixels-beyond-the-last-patch";
const GRAPHS = ["beam.onnx", "greedy.onnx", "sample.onnx", "vision.onnx"];
const FILES = [...GRAPHS, "engine.json", "tokenizer.json", "tokenizer_config.json", "weights.bin"].sort();
const QUERY = "text_decoder.bert.encoder.layer.1.attention.self.query.weight";
const PATCH = "vision_model.embeddings.patch_embedding.weight";

type Tensors = Record<string, TestTensor>;
const reshape = (name: string, shape: number[]) => (tensors: Tensors) => {
  tensors[name] = { dtype: "F32", shape, bytes: new Uint8Array(4 * shape.reduce((a, b) => a * b)) };
};

test.each<[string, (tensors: Tensors) => void, string[]]>([
  ["missing", (t) => delete t[QUERY], [QUERY, "has no tensor", "[36, 36]"]],
  ["misshapen", reshape(QUERY, [36, 35]), [QUERY, "[36, 35], expected shape [36, 36]"]],
  ["of fewer dimensions", reshape(PATCH, [24, 432]), [PATCH, "[24, 432], expected shape [24, 3, 12, 12]"]],
  ["of another kind", (t) => Object.assign(t[QUERY]!, { dtype: "I32" }), [QUERY, "in I32, expected F32, F16, BF16"]],
  ["missing from a norm", (t) => delete t["vision_model.post_layernorm.bias"], ["vision_model.post_layernorm.bias"]],
])(
  "a tensor %s is MODEL_INVALID, naming it and what was expected, and leaves nothing behind",
  async (_, edit, words) => {
    await using folder = await Folder.withCheckpoint(CASE);
    await editTensors(folder.at("checkpoint"), edit);
    const error = await compileEngine(folder.at("checkpoint"), ref, folder.at("engine")).catch(
      (thrown: Error) => thrown,
    );
    expect(error).toMatchObject({ code: "MODEL_INVALID" });
    for (const word of words) expect(error!.message).toContain(word);
    expect(await readdir(folder.path)).toEqual(["checkpoint"]);
  },
);

test("weights that end early are MODEL_INVALID", async () => {
  await using folder = await Folder.withCheckpoint(CASE);
  const weights = folder.at("checkpoint", "model.safetensors");
  await truncate(weights, (await stat(weights)).size - 1);
  const invalid = { code: "MODEL_INVALID", message: expect.stringContaining("cut off") };
  await expect(compileEngine(folder.at("checkpoint"), ref, folder.at("engine"))).rejects.toMatchObject(invalid);
});

test("a checkpoint without a tokenizer is MODEL_INVALID", async () => {
  await using folder = await Folder.withCheckpoint(CASE);
  await rm(folder.at("checkpoint", "vocab.txt"));
  const invalid = { code: "MODEL_INVALID", message: expect.stringContaining("neither tokenizer.json nor vocab.txt") };
  await expect(compileEngine(folder.at("checkpoint"), ref, folder.at("engine"))).rejects.toMatchObject(invalid);
});

test("an engine that can't be written is ENGINE_FAILED, and leaves nothing behind", async () => {
  await using folder = await Folder.withCheckpoint(CASE);
  // Something else is where the engine should be.
  await cp(folder.at("checkpoint"), folder.at("engine"), { recursive: true });
  const failed = expect.objectContaining({ code: "ENGINE_FAILED" });
  await expect(compileEngine(folder.at("checkpoint"), ref, folder.at("engine"))).rejects.toEqual(failed);
  expect((await readdir(folder.path)).sort()).toEqual(["checkpoint", "engine"]);
});

test("an engine that is there is kept, and not compiled again", async () => {
  await using folder = await Folder.withCheckpoint(CASE);
  await ensureEngine(folder.at("checkpoint"), ref, folder.at("engine"));
  const before = await stat(folder.at("engine", "weights.bin"));
  await rm(folder.at("checkpoint"), { recursive: true });
  await ensureEngine(folder.at("checkpoint"), ref, folder.at("engine"));
  expect((await stat(folder.at("engine", "weights.bin"))).ino).toBe(before.ino);
});

test("of several that compile the same engine at once, one wins and all succeed", async () => {
  await using folder = await Folder.withCheckpoint(CASE);
  const compile = () => compileEngine(folder.at("checkpoint"), ref, folder.at("engine"));
  await Promise.all(Array.from({ length: 4 }, compile));
  expect((await readdir(folder.path)).sort()).toEqual(["checkpoint", "engine"]);
  expect((await readdir(folder.at("engine"))).sort()).toEqual(FILES);
  await (await loadEngine(folder.at("engine"), { threads: 1, device: "cpu" })).release();
});

const PROGRAM = `
  import { compileEngine } from ${JSON.stringify(new URL("../../src/blip/index.ts", import.meta.url).href)};
  const [checkpoint, ref, out] = process.argv.slice(1);
  await compileEngine(checkpoint, JSON.parse(ref), out);
  console.log(process.resourceUsage().maxRSS);
`;

function compileElsewhere(folder: Folder, checkpoint: string): ChildProcess {
  const args = [
    "--input-type=module",
    "--eval",
    PROGRAM,
    folder.at(checkpoint),
    JSON.stringify(ref),
    folder.at("engine"),
  ];
  return spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "inherit"],
    cwd: fileURLToPath(new URL(".", import.meta.url)),
  });
}

async function ended(child: ChildProcess): Promise<{ code: number | null; output: string }> {
  let output = "";
  child.stdout!.on("data", (data: Buffer) => {
    output += data.toString();
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, output };
}

/** Makes the vocabulary so large that the checkpoint has `bytes` more; they are a hole in the file. */
async function grow(checkpoint: string, bytes: number): Promise<void> {
  const [width, file] = [36, `${checkpoint}/model.safetensors`];
  const vocabulary = Math.ceil(bytes / 4 / width);
  const { size } = await stat(file);
  const content = await readFile(file);
  const length = Number(content.readBigUInt64LE());
  const header = JSON.parse(content.toString("utf8", 8, 8 + length));
  const dataAt = size - 8 - length;
  const end = dataAt + 4 * vocabulary * width;
  const embeddings = "text_decoder.bert.embeddings.word_embeddings.weight";
  // What they replace stays under other names, since a file must not have holes.
  header.former = header[embeddings];
  header["former.bias"] = header["text_decoder.cls.predictions.bias"];
  header[embeddings] = { dtype: "F32", shape: [vocabulary, width], data_offsets: [dataAt, end] };
  header["text_decoder.cls.predictions.bias"] = {
    dtype: "F32",
    shape: [vocabulary],
    data_offsets: [end, end + 4 * vocabulary],
  };
  const json = Buffer.from(JSON.stringify(header));
  await writeFile(file, Buffer.concat([headerLength(json.length), json, content.subarray(8 + length)]));
  await truncate(file, 8 + json.length + end + 4 * vocabulary);
  await editJson(`${checkpoint}/config.json`, (config) => {
    config.text_config.vocab_size = vocabulary;
  });
}

test("memory does not grow with the checkpoint", async () => {
  const GROWTH = 256 << 20;
  await using small = await Folder.withCheckpoint(CASE);
  await using large = await Folder.withCheckpoint(CASE);
  await grow(large.at("checkpoint"), GROWTH);
  const peak = async (folder: Folder) => 1024 * Number((await ended(compileElsewhere(folder, "checkpoint"))).output);
  const [base, more] = [await peak(small), await peak(large)];
  expect(base).toBeGreaterThan(0);
  expect((await stat(large.at("engine", "weights.bin"))).size).toBeGreaterThan(GROWTH);
  // Measured: 8 MB, of buffers of 4 MB that the garbage collector has not met yet.
  expect(more - base).toBeLessThan(GROWTH / 4);
});

test("what a killed process leaves behind is no engine, and does not disturb the next", async () => {
  await using folder = await Folder.withCheckpoint(CASE);
  await grow(folder.at("checkpoint"), 256 << 20);
  const child = compileElsewhere(folder, "checkpoint");
  const close = once(child, "close");
  await expect
    .poll(() => readdirSync(folder.path).some((name) => name.startsWith("engine.")), { interval: 1, timeout: 20_000 })
    .toBe(true);
  child.kill("SIGKILL");
  await close;
  expect(existsSync(folder.at("engine"))).toBe(false);
  await compileEngine(folder.at("checkpoint"), ref, folder.at("engine"));
  expect((await readdir(folder.at("engine"))).sort()).toEqual(FILES);
});

test("what was abandoned long ago is removed, what another process may be writing is not", async () => {
  await using folder = await Folder.withCheckpoint(CASE);
  const [abandoned, fresh, other] = ["engine.one", "engine.two", "engines.three"].map((name) => folder.at(name));
  for (const path of [abandoned!, fresh!, other!]) await mkdir(path);
  const yesterday = new Date(Date.now() - 24 * 3_600_000);
  for (const path of [abandoned!, other!]) await utimes(path, yesterday, yesterday);
  await compileEngine(folder.at("checkpoint"), ref, folder.at("engine"));
  expect([abandoned!, fresh!, other!].map((path) => existsSync(path))).toEqual([false, true, true]);
});

test("the file of weights has every tensor where the graph says, in float32", async () => {
  await using folder = await Folder.withCheckpoint(CASE);
  const known = Float32Array.from({ length: 36 * 36 }, (_, i) => i + 0.5);
  await editTensors(folder.at("checkpoint"), (tensors) => {
    Object.assign(tensors[QUERY]!, { bytes: new Uint8Array(known.buffer) });
  });
  await compileEngine(folder.at("checkpoint"), ref, folder.at("engine"));
  await using file = await open(folder.at("engine", "weights.bin"));
  const weights = await file.readFile();
  const at = weights.indexOf(Buffer.from(known.buffer));
  expect(at % 64).toBe(0);
});
