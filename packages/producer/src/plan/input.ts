/** A job's input: what kind it is, whether it can be read, and the dataset that it stands for. */
import {
  CapfleetError,
  type Input,
  inputSchema,
  type JobSpec,
  type JobTaskSpec,
  textsOf,
} from "@capfleet/shared/contract";
import {
  checkManifest,
  checkWebdataset,
  type Dataset,
  type Entry,
  holdsTars,
  manifestDataset,
  prefixDataset,
  webdatasetDataset,
} from "@capfleet/shared/datasets";
import { normalizeUri, type Stores } from "@capfleet/shared/storage";

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

/** What of a job says which records it has. */
export type DatasetSpec = Pick<JobSpec, "input" | "task" | "readable">;

export function openDataset({ input, task, readable }: DatasetSpec, stores: Stores): Dataset {
  const dataset = datasetOf(input, task, stores);
  return readable ? onlyReadable(dataset, readable) : dataset;
}

function datasetOf(input: Input, task: JobTaskSpec, stores: Stores): Dataset {
  if (input.kind === "prefix") return prefixDataset(stores.at(input.uri));
  if (input.kind === "webdataset") return webdatasetDataset(input, stores, task);
  const { store, key } = stores.object(input.uri);
  return manifestDataset(store, key, input, task);
}

/**
 * Throws INVALID_OPTION (a column of a prefix), INPUT_NOT_FOUND, INPUT_EMPTY, MANIFEST_INVALID, TAR_INVALID,
 * LOCATION_FORBIDDEN (of the first image), or the store's errors, before anything has been created.
 */
export async function checkInput(spec: DatasetSpec, stores: Stores): Promise<void> {
  const { input, task } = spec;
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
  for await (const [first] of openDataset(spec, stores).entries(null)) {
    const error = first?.record.error;
    if (error?.code === "IMAGE_FORBIDDEN")
      throw new CapfleetError("LOCATION_FORBIDDEN", `${input.uri}: ${error.message}`);
    return;
  }
  const nothing = input.kind !== "prefix" ? "no lines" : "no images";
  throw new CapfleetError("INPUT_EMPTY", `${input.uri} holds ${nothing}`);
}

/** A manifest may name images anywhere; one that its submitter may not read is a row that says so. */
function onlyReadable(dataset: Dataset, readable: readonly string[]): Dataset {
  const judged = ({ record, cursor }: Entry): Entry => {
    const { image } = record;
    if (record.error || image === null || image.startsWith("https://") || isBelow(image, readable))
      return { record, cursor };
    const message = `the job may not read ${image}`;
    return { record: { ...record, error: { code: "IMAGE_FORBIDDEN", message, retryable: false } }, cursor };
  };
  return {
    async *entries(from) {
      for await (const entries of dataset.entries(from)) yield entries.map(judged);
    },
  };
}

/** Whether a location in normal form lies below one of the prefixes; none that climbs does. */
export const isBelow = (uri: string, prefixes: readonly string[]): boolean =>
  prefixes.some((prefix) => uri.startsWith(prefix)) && !/\/\.{1,2}(\/|$)/.test(uri);

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
