/**
 * Makes an engine of a checkpoint: a folder with the graphs, the weights, the tokenizer and, in engine.json, what the
 * worker needs to know. A folder appears whole or not at all: it is written under another name and then renamed. Several
 * processes may compile the same engine at once; the first to finish wins, the others drop theirs.
 */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { asCapfleetError, CapfleetError, type EngineRef } from "@capfleet/shared/contract";
import { GRAPH_VERSION } from "@capfleet/shared/models";
import { openCheckpoint } from "./checkpoint/index.ts";
import { readModel } from "./families/index.ts";
import { ENGINE_FILE, type EngineFile, graphFile, WEIGHTS_FILE } from "./folder.ts";
import { buildGraphs } from "./graphs.ts";
import { encodeModel } from "./onnx/graph.ts";
import { checkVocabulary, readTokenizer } from "./tokenizer.ts";
import { WeightsFile } from "./weights.ts";

/** No compilation takes this long from one file to the next. */
const ABANDONED_MS = 6 * 3_600 * 1_000;

/** `compileEngine`, unless `outDir` holds an engine already. */
export async function ensureEngine(checkpointDir: string, ref: EngineRef, outDir: string): Promise<void> {
  if (!isEngine(outDir)) await compileEngine(checkpointDir, ref, outDir);
}

const isEngine = (folder: string) => existsSync(join(folder, ENGINE_FILE));

/**
 * Compiles the checkpoint in `checkpointDir` into `outDir`; where an engine is there by then, it stays. Weights are
 * converted a few MB at a time, so that memory does not grow with the checkpoint.
 *
 * Throws MODEL_INVALID and MODEL_UNSUPPORTED, which name the file and the field or tensor; ENGINE_FAILED where the
 * engine can't be written.
 */
export async function compileEngine(checkpointDir: string, ref: EngineRef, outDir: string): Promise<void> {
  const model = await readModel(checkpointDir);
  const tokenizer = await readTokenizer(checkpointDir);
  checkVocabulary(checkpointDir, tokenizer, model.tokenizer);
  const weights = new WeightsFile(await openCheckpoint(checkpointDir), ref.precision);
  const graphs = buildGraphs(model.builds(model.preprocessing), weights);
  if (ref.precision === "int4" && !weights.hasNibbles) {
    const why = "int4 is for large language models (BLIP-2's OPT) with widths that 32 divides; use int8";
    throw new CapfleetError("MODEL_UNSUPPORTED", `${checkpointDir}: ${why}`);
  }
  const { tasks, vision, positions, generation } = model;
  const engine: EngineFile = {
    graph: GRAPH_VERSION,
    ref,
    tasks: [...tasks],
    weights: weights.size,
    size: vision.size,
    positions,
    generation,
  };

  const folder = `${resolve(outDir)}.${randomUUID()}`;
  // Flushed, so that the name can't outlive the contents when the machine goes down.
  const write = (name: string, data: string | Uint8Array | AsyncIterable<Uint8Array>) =>
    writeFile(join(folder, name), data, { flush: true });
  try {
    await mkdir(folder, { recursive: true });
    await sweep(resolve(outDir));
    await write(WEIGHTS_FILE, weights.bytes());
    for (const [name, graph] of graphs) await write(graphFile(name), encodeModel(graph));
    for (const [name, content] of Object.entries(tokenizer)) await write(name, JSON.stringify(content));
    await write(ENGINE_FILE, JSON.stringify(engine, null, 2));
    // Fails where another process has been faster: a folder that is not empty can't be replaced.
    await rename(folder, outDir);
  } catch (thrown) {
    await rm(folder, { recursive: true, force: true });
    if (!isEngine(outDir)) throw asCapfleetError(thrown, "ENGINE_FAILED");
  }
}

/** Removes what killed processes have left of this engine: a worker that dies again and again must not fill the disk. */
async function sweep(outDir: string): Promise<void> {
  for (const name of await readdir(dirname(outDir))) {
    if (!name.startsWith(`${basename(outDir)}.`)) continue;
    const folder = join(dirname(outDir), name);
    const touched = await stat(folder).catch(() => null);
    if (touched && Date.now() - touched.mtimeMs > ABANDONED_MS) await rm(folder, { recursive: true, force: true });
  }
}
