/** A job's input: what kind it is, whether it can be read, and the dataset that it stands for. */
import {
  CapfleetError,
  type Input,
  inputSchema,
  type JobTaskSpec,
  needsImage,
  textsOf,
} from "@capfleet/shared/contract";
import {
  checkManifest,
  checkWebdataset,
  type Dataset,
  type Entry,
  holdsTars,
  incrementalDataset,
  manifestDataset,
  prefixDataset,
  webdatasetDataset,
} from "@capfleet/shared/datasets";
import { isHttps, normalizeUri, type Stores } from "@capfleet/shared/storage";

/** What the columns of a manifest, or the fields of a tar's json, mean. */
export interface Columns {
  image?: string;
  id?: string;
  keep?: string[];
}

/** Tars or a manifest by its ending, otherwise a prefix. Throws INVALID_URI. */
export function parseInput(given: string, { keep = [], ...columns }: Columns = {}): Input {
  const kind = /\.tar$/i.test(given) ? "webdataset" : /\.(jsonl|ndjson)$/i.test(given) ? "jsonl" : "prefix";
  const uri = normalizeUri(given);
  const whole = kind === "prefix" && !uri.endsWith("/") ? `${uri}/` : uri;
  return inputSchema.parse({ kind, uri: whole, columns, keep: [...new Set(keep)] });
}

/** A prefix that holds tar shards is told from one of images by what is in it. Throws the store's errors. */
export async function resolveInput(input: Input, stores: Stores): Promise<Input> {
  if (input.kind !== "prefix" || !(await holdsTars(stores.at(input.uri)))) return input;
  return { ...input, kind: "webdataset" };
}

export function openDataset(input: Input, task: JobTaskSpec, stores: Stores): Dataset {
  const { since } = input;
  if (since) return incrementalDataset(stores.at(input.uri), stores.at(since.root), since.index);
  if (input.kind === "prefix") return prefixDataset(stores.at(input.uri));
  if (input.kind === "webdataset") return webdatasetDataset(input, stores, task);
  const { store, key } = stores.object(input.uri);
  return manifestDataset(store, key, input, task);
}

/**
 * Throws INVALID_OPTION (a column of a prefix), INVALID_CONFIG (images on the web, and no host is allowed), INPUT_NOT_FOUND, INPUT_EMPTY, MANIFEST_INVALID, TAR_INVALID, or the
 * store's errors, before anything has been created.
 */
export async function checkInput(input: Input, task: JobTaskSpec, stores: Stores): Promise<void> {
  checkColumns(input);
  if (input.kind === "webdataset") return checkWebdataset(input, stores, task);
  if (input.kind !== "prefix") {
    const { store, key } = stores.object(input.uri);
    if (!(await store.stat(key))) throw new CapfleetError("INPUT_NOT_FOUND", `${input.uri} does not exist`);
    await checkManifest(store, key, input, task);
  } else {
    const source = textsOf(task);
    if (source && "column" in source) {
      const message = `the column "${source.column}" needs a .jsonl manifest or tar shards as input; ${input.uri} is a folder or prefix`;
      throw new CapfleetError("INVALID_OPTION", message);
    }
    await checkPrefix(input.uri, stores);
  }
  for await (const entries of openDataset(input, task, stores).entries(null)) return checkWeb(entries, task, stores);
  const nothing = input.kind !== "prefix" ? "no lines" : "no images";
  throw new CapfleetError("INPUT_EMPTY", `${input.uri} holds ${nothing}`);
}

/** Throws INVALID_CONFIG where one of a dataset's first images is on the web, from where none may come. */
function checkWeb(entries: Entry[], task: JobTaskSpec, stores: Stores): void {
  if (!needsImage(task) || stores.https.guard.isOpen) return;
  const found = entries.find(({ record }) => record.image !== null && !record.error && isHttps(record.image));
  if (!found) return;
  const message = `CAPFLEET_HTTPS_HOSTS allows no host on the web, and the input has images such as ${found.record.image}`;
  throw new CapfleetError("INVALID_CONFIG", message);
}

/** Throws INVALID_OPTION where the input has no such thing as columns. */
function checkColumns({ kind, uri, columns, keep }: Input): void {
  const given = [
    ...(columns.image === "image" ? [] : ["--image-column"]),
    ...(columns.id === "id" ? [] : ["--id-column"]),
  ];
  const strange =
    kind === "prefix" ? [...given, ...(keep.length > 0 ? ["--keep"] : [])] : kind === "webdataset" ? given : [];
  if (strange.length === 0) return;
  const what = kind === "prefix" ? "a folder or prefix of images" : "tar shards";
  throw new CapfleetError("INVALID_OPTION", `${strange[0]} is for manifests; ${uri} is ${what}`);
}

async function checkPrefix(uri: string, stores: Stores): Promise<void> {
  for await (const _ of stores.at(uri).list()) return;
  const { store, key } = stores.object(uri.slice(0, -1));
  if (key !== "" && (await store.stat(key))) {
    throw new CapfleetError(
      "INPUT_NOT_FOUND",
      `${uri.slice(0, -1)} is a file; give a folder, a prefix, a .jsonl manifest or .tar shards`,
    );
  }
  throw new CapfleetError("INPUT_NOT_FOUND", `${uri} does not exist or holds nothing`);
}
