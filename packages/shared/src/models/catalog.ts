/** From what a user calls a model to the engine that a job pins, and to the checkpoint that a worker compiles. */
import type { Config } from "../config.ts";
import { CapfleetError } from "../contract/errors.ts";
import { type EngineRef, PRECISIONS, type Precision } from "../contract/job.ts";
import { type Store, type Stores, storesFromEnv } from "../storage/index.ts";
import { BucketModel } from "./bucket.ts";
import { describeCheckpoint, fetchCheckpoint } from "./cache.ts";
import { type Abilities, type CheckpointAbilities, checkpointAbilities, checkpointDigest } from "./checkpoint.ts";
import { choosePrecision } from "./device.ts";
import { engineRef } from "./engine.ts";
import { HubModel, readHubSettings } from "./hub.ts";
import { type RegisteredModel, registeredModels } from "./registry.ts";
import type { FetchListener } from "./remote.ts";
import { bundledFolder, type ModelSource, sourceOf } from "./source.ts";

export interface Model extends Abilities {
  ref: EngineRef;
  /** Where its checkpoint is; null for one that is known only because a worker registered it. */
  folder: string | null;
}

export interface Fetching extends FetchListener {
  /** What an s3:// source is read through; by default as the environment says. */
  stores?: Stores;
}

/** A checkpoint on this machine, of a kind that runs here. */
interface Checkpoint extends CheckpointAbilities {
  name: string;
  folder: string;
}

/**
 * What a job's model is: for a hub model or a mere name, what workers have registered under it; for a folder, a bundled
 * name or a bucket, the checkpoint there. Without a `precision` it is the one that workers run, the last registered
 * of several, and a CPU's where there is none. A hub model that nobody has registered is downloaded.
 *
 * Throws INVALID_OPTION (a precision that the model does not have), and what `fetchModel` throws.
 */
export async function findModel(
  given: string,
  precision: Precision | null,
  state: Store,
  config: Config,
  fetching: Fetching = {},
): Promise<Model> {
  const source = sourceOf(given);
  const registered = await registeredModels(source.name, state);
  const fits = registered.filter(({ ref }) => precision === null || ref.precision === precision);
  if (source.kind === "hub" || source.kind === "name") {
    const last = fits.at(-1);
    if (last) return { ...last, folder: null };
    if (source.kind === "name" && registered.length > 0) throw otherPrecisions(given, precision, registered);
  }
  const checkpoint = await fetchModel(given, config, fetching);
  const digest = await checkpointDigest(checkpoint.folder, config.cache);
  // A registration may be of another checkpoint of that name, or of another version of capfleet: then it does not count.
  const mine = new Set(PRECISIONS.map((each) => engineRef(checkpoint.name, digest, each).digest));
  const run = fits.findLast(({ ref }) => mine.has(ref.digest))?.ref.precision;
  return localModel(checkpoint, precision ?? run ?? choosePrecision("cpu"), config);
}

/**
 * The same for somebody who may not have the producer read folders and buckets or download anything: a bundled model, or
 * one that workers have registered. Throws MODEL_NOT_FOUND and INVALID_OPTION.
 */
export async function findServedModel(
  given: string,
  precision: Precision | null,
  state: Store,
  config: Config,
): Promise<Model> {
  if (bundledFolder(given)) return findModel(given, precision, state, config);
  const registered = await registeredModels(given, state);
  const last = registered.findLast(({ ref }) => precision === null || ref.precision === precision);
  if (last) return { ...last, folder: null };
  if (registered.length > 0) throw otherPrecisions(given, precision, registered);
  const message = `no model "${given}" is bundled, or registered by a worker that runs it`;
  throw new CapfleetError("MODEL_NOT_FOUND", message);
}

function otherPrecisions(given: string, precision: Precision | null, registered: readonly RegisteredModel[]) {
  const others = registered.map(({ ref }) => ref.precision).join(", ");
  return new CapfleetError("MODEL_NOT_FOUND", `workers run "${given}" as ${others}, not as ${precision}`);
}

/** The same from the checkpoint alone, as a worker needs it. Throws the same. */
export async function findLocalModel(
  given: string,
  precision: Precision,
  config: Config,
  fetching: Fetching = {},
): Promise<Model> {
  return localModel(await fetchModel(given, config, fetching), precision, config);
}

/**
 * The checkpoint on this machine: downloaded into the cache, unless it is there. One that nothing here can use is
 * refused before its weights are downloaded.
 *
 * Throws MODEL_NOT_FOUND, MODEL_INVALID, MODEL_UNSUPPORTED; HUB_UNREACHABLE, HUB_ACCESS_DENIED, HUB_NOT_FOUND; a
 * store's errors; DISK_FULL, DOWNLOAD_CORRUPT.
 */
export async function fetchModel(given: string, config: Config, fetching: Fetching = {}): Promise<Checkpoint> {
  const found = await fetchSource(given, config, fetching);
  return { ...found, ...(await checkpointAbilities(found.folder)) };
}

async function fetchSource(given: string, config: Config, fetching: Fetching) {
  const source = sourceOf(given);
  const { name } = source;
  if (source.kind === "folder") {
    // A cached checkpoint's folder is called by a digest; the model is not.
    const description = await describeCheckpoint(source.folder);
    return { name: description?.name ?? name, folder: source.folder };
  }
  if (source.kind === "hub") {
    const remote = new HubModel(source.repo, source.revision, readHubSettings());
    return { name, folder: await fetchCheckpoint(remote, name, config.cache, fetching) };
  }
  if (source.kind === "bucket") return { name, folder: await fetchBucket(source, config, fetching) };
  throw new CapfleetError(
    "MODEL_NOT_FOUND",
    `no model "${given}": no checkpoint folder, no bundled model, no hub id (owner/name), and nothing registered`,
  );
}

async function fetchBucket(source: ModelSource & { kind: "bucket" }, config: Config, fetching: Fetching) {
  const stores = fetching.stores ?? storesFromEnv();
  try {
    return await fetchCheckpoint(new BucketModel(stores.at(source.uri)), source.name, config.cache, fetching);
  } finally {
    if (!fetching.stores) stores.close();
  }
}

async function localModel(found: Checkpoint, precision: Precision, config: Config): Promise<Model> {
  const { name, folder, precisions, ...abilities } = found;
  if (!precisions.includes(precision)) {
    const message = `${name} can't run as ${precision}, which is for large language models`;
    throw new CapfleetError("INVALID_OPTION", `${message} (it runs as ${precisions.join(", ")})`);
  }
  const checkpoint = await checkpointDigest(folder, config.cache);
  return { ref: engineRef(name, checkpoint, precision), ...abilities, folder };
}
