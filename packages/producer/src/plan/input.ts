/** A job's input: what kind it is, whether it can be read, and the dataset that it stands for. */
import {
  CapfleetError,
  type Input,
  inputSchema,
  type JobSpec,
  type JobTaskSpec,
  needsImage,
  textsOf,
} from "@capfleet/shared/contract";
import {
  checkManifest,
  checkWebdataset,
  type Dataset,
  type Entry,
  incrementalDataset,
  kindOfPrefix,
  manifestDataset,
  prefixDataset,
  webdatasetDataset,
} from "@capfleet/shared/datasets";
import { isHttps, normalizeUri, type Stores } from "@capfleet/shared/storage";

const ENDINGS: [RegExp, Input["kind"]][] = [
  [/\.tar$/i, "webdataset"],
  [/\.(jsonl|ndjson)$/i, "jsonl"],
  [/\.[ct]sv$/i, "csv"],
  [/\.parquet$/i, "parquet"],
];

/** What the columns of a manifest, or the fields of a tar's json, mean. */
export interface Columns {
  image?: string;
  id?: string;
  keep?: string[];
}

/** Tars or a manifest by its ending, otherwise a prefix. Throws INVALID_URI. */
export function parseInput(given: string, { keep = [], ...columns }: Columns = {}): Input {
  const kind = ENDINGS.find(([ending]) => ending.test(given))?.[1] ?? "prefix";
  const uri = normalizeUri(given);
  const whole = kind === "prefix" && !uri.endsWith("/") ? `${uri}/` : uri;
  return inputSchema.parse({ kind, uri: whole, columns, keep: [...new Set(keep)] });
}

/**
 * A prefix of tar shards or of Parquet files is told from one of images by what is in it. Spark's folders end in `.parquet`
 * as its files do. Throws the store's errors.
 */
export async function resolveInput(input: Input, stores: Stores): Promise<Input> {
  const { kind, uri } = input;
  if (kind === "prefix") return { ...input, kind: await kindOfPrefix(stores.at(uri)) };
  if (kind !== "parquet") return input;
  const { store, key } = stores.object(uri);
  const isFolder = !(await store.stat(key)) && (await kindOfPrefix(stores.at(uri))) === "parquet";
  return isFolder ? { ...input, uri: `${uri}/` } : input;
}

/** What of a job says which records it has. */
export type DatasetSpec = Pick<JobSpec, "input" | "task" | "readable">;

export function openDataset({ input, task, readable }: DatasetSpec, stores: Stores): Dataset {
  const dataset = datasetOf(input, task, stores);
  return readable ? onlyReadable(dataset, readable) : dataset;
}

function datasetOf(input: Input, task: JobTaskSpec, stores: Stores): Dataset {
  const { kind, since } = input;
  if (since) return incrementalDataset(stores.at(input.uri), stores.at(since.root), since.index);
  if (kind === "prefix") return prefixDataset(stores.at(input.uri));
  if (kind === "webdataset") return webdatasetDataset(input, stores, task);
  return manifestDataset({ ...input, kind }, stores, task);
}

/**
 * Throws INVALID_OPTION (a column of a prefix), INVALID_CONFIG (images on the web, and no host is allowed), INPUT_NOT_FOUND,
 * INPUT_EMPTY, MANIFEST_INVALID, TAR_INVALID, LOCATION_FORBIDDEN (of the first image), or the store's errors, before
 * anything has been created.
 */
export async function checkInput(spec: DatasetSpec, stores: Stores): Promise<void> {
  const { input, task } = spec;
  checkColumns(input);
  const { kind, uri } = input;
  if (kind === "webdataset") return checkWebdataset(input, stores, task);
  if (kind !== "prefix") {
    await checkManifest({ ...input, kind }, stores, task);
    return checkImages(spec, stores);
  }
  const source = textsOf(task);
  if (source && "column" in source) {
    const message = `the column "${source.column}" needs a manifest or tar shards as input; ${uri} is a folder or prefix`;
    throw new CapfleetError("INVALID_OPTION", message);
  }
  await checkPrefix(uri, stores);
  for await (const _ of datasetOf(input, task, stores).entries(null)) return;
  throw new CapfleetError("INPUT_EMPTY", `${uri} holds no images`);
}

/**
 * A manifest may name images anywhere. Throws LOCATION_FORBIDDEN where its first one may not be read, and INVALID_CONFIG
 * where one of the first is on the web, from where none may come.
 */
async function checkImages(spec: DatasetSpec, stores: Stores): Promise<void> {
  for await (const entries of openDataset(spec, stores).entries(null)) {
    const error = entries[0]?.record.error;
    if (error?.code === "IMAGE_FORBIDDEN")
      throw new CapfleetError("LOCATION_FORBIDDEN", `${spec.input.uri}: ${error.message}`);
    if (!needsImage(spec.task) || stores.https.guard.isOpen) return;
    const found = entries.find(({ record }) => record.image !== null && !record.error && isHttps(record.image));
    if (!found) return;
    const message = `CAPFLEET_HTTPS_HOSTS allows no host on the web, and the input has images such as ${found.record.image}`;
    throw new CapfleetError("INVALID_CONFIG", message);
  }
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

/** Throws INPUT_NOT_FOUND and the store's errors. */
export async function checkPrefix(uri: string, stores: Stores): Promise<void> {
  for await (const _ of stores.at(uri).list()) return;
  const file = uri.slice(0, -1);
  const { store, key } = stores.object(file);
  if (key === "" || !(await store.stat(key))) {
    throw new CapfleetError("INPUT_NOT_FOUND", `${uri} does not exist or holds nothing`);
  }
  const isCompressed = /\.(gz|zst|bz2|xz|zip)$/i.test(file);
  const wanted = "give a folder, a prefix, a .jsonl, .csv, .tsv or .parquet manifest, or .tar shards";
  throw new CapfleetError(
    "INPUT_NOT_FOUND",
    `${file} is a file${isCompressed ? ", compressed: unpack it" : ""}; ${wanted}`,
  );
}
