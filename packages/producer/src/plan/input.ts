/** A job's input: what kind it is, whether it can be read, and the dataset that it stands for. */
import { CapfleetError, type Input, inputSchema, type JobTaskSpec, textsOf } from "@capfleet/shared/contract";
import { checkManifest, type Dataset, manifestDataset, prefixDataset } from "@capfleet/shared/datasets";
import { normalizeUri, type Stores } from "@capfleet/shared/storage";

/** A manifest by its ending, otherwise a prefix. Throws INVALID_URI. */
export function parseInput(given: string): Input {
  const kind = /\.(jsonl|ndjson)$/i.test(given) ? "jsonl" : "prefix";
  const uri = normalizeUri(given);
  return inputSchema.parse({ kind, uri: kind === "prefix" && !uri.endsWith("/") ? `${uri}/` : uri });
}

export function openDataset(input: Input, task: JobTaskSpec, stores: Stores): Dataset {
  if (input.kind === "prefix") return prefixDataset(stores.at(input.uri));
  const { store, key } = stores.object(input.uri);
  return manifestDataset(store, key, task);
}

/**
 * Throws INVALID_OPTION (a column of a prefix), INPUT_NOT_FOUND, INPUT_EMPTY, MANIFEST_INVALID, or the store's errors,
 * before anything has been created.
 */
export async function checkInput(input: Input, task: JobTaskSpec, stores: Stores): Promise<void> {
  if (input.kind !== "prefix") {
    const { store, key } = stores.object(input.uri);
    if (!(await store.stat(key))) throw new CapfleetError("INPUT_NOT_FOUND", `${input.uri} does not exist`);
    await checkManifest(store, key, task);
  } else {
    const source = textsOf(task);
    if (source && "column" in source) {
      const message = `the column "${source.column}" needs a .jsonl manifest as input; ${input.uri} is a folder or prefix`;
      throw new CapfleetError("INVALID_OPTION", message);
    }
    await checkPrefix(input.uri, stores);
  }
  for await (const _ of openDataset(input, task, stores).entries(null)) return;
  const nothing = input.kind !== "prefix" ? "no lines" : "no images";
  throw new CapfleetError("INPUT_EMPTY", `${input.uri} holds ${nothing}`);
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
