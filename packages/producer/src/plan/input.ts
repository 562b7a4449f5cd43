/** A job's input: what kind it is, whether it can be read, and the dataset that it stands for. */
import { CapfleetError, type JobSpec } from "@capfleet/shared/contract";
import { checkManifest, type Dataset, manifestDataset, prefixDataset } from "@capfleet/shared/datasets";
import { normalizeUri, type Stores } from "@capfleet/shared/storage";

type Input = JobSpec["input"];

/** A manifest by its ending, otherwise a prefix. Throws INVALID_URI. */
export function parseInput(given: string): Input {
  const kind = /\.(jsonl|ndjson)$/i.test(given) ? "manifest" : "prefix";
  const uri = normalizeUri(given);
  return { kind, uri: kind === "prefix" && !uri.endsWith("/") ? `${uri}/` : uri };
}

export function openDataset(input: Input, stores: Stores): Dataset {
  if (input.kind === "prefix") return prefixDataset(stores.at(input.uri));
  const { store, key } = stores.object(input.uri);
  return manifestDataset(store, key);
}

/** Throws INPUT_NOT_FOUND, INPUT_EMPTY, MANIFEST_INVALID, or the store's errors, before anything has been created. */
export async function checkInput(input: Input, stores: Stores): Promise<void> {
  if (input.kind === "manifest") {
    const { store, key } = stores.object(input.uri);
    if (!(await store.stat(key))) throw new CapfleetError("INPUT_NOT_FOUND", `${input.uri} does not exist`);
    await checkManifest(store, key);
  } else {
    await checkPrefix(input.uri, stores);
  }
  for await (const _ of openDataset(input, stores).entries(null)) return;
  throw new CapfleetError("INPUT_EMPTY", `${input.uri} holds no images`);
}

async function checkPrefix(uri: string, stores: Stores): Promise<void> {
  for await (const _ of stores.at(uri).list()) return;
  const { store, key } = stores.object(uri.slice(0, -1));
  if (key !== "" && (await store.stat(key))) {
    throw new CapfleetError(
      "INPUT_NOT_FOUND",
      `${uri.slice(0, -1)} is a file; give a folder, a prefix or a .jsonl manifest`,
    );
  }
  throw new CapfleetError("INPUT_NOT_FOUND", `${uri} does not exist or holds nothing`);
}
