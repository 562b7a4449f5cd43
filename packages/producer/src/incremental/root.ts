/** `<root>/dataset.json`: what a dataset of incremental runs shows, and which run is under way. */
import {
  CapfleetError,
  type DatasetRoot,
  datasetLayout,
  datasetRootSchema,
  type JobSpec,
} from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import { digestOf } from "../jobs/create.ts";

export interface FoundRoot {
  root: DatasetRoot;
  etag: string;
}

/** Null where there is no dataset. Throws OUTPUT_IN_USE where it is not one of this version, and the store's errors. */
export async function readRoot(store: Store): Promise<FoundRoot | null> {
  if (!(await store.stat(datasetLayout.dataset))) return null;
  const { bytes, etag } = await store.read(datasetLayout.dataset);
  try {
    return { root: datasetRootSchema.parse(JSON.parse(bytes.toString("utf8"))), etag };
  } catch {
    const uri = store.uriOf(datasetLayout.dataset);
    throw new CapfleetError("OUTPUT_IN_USE", `${uri} is not a dataset of this version of capfleet`);
  }
}

/** Writes it where it is still the one with `etag`, or (null) where there is none; false where somebody was quicker. */
export async function writeRoot(store: Store, root: DatasetRoot, etag: string | null): Promise<boolean> {
  const body = `${JSON.stringify(root, null, 2)}\n`;
  const put =
    etag === null
      ? await store.putIfAbsent(datasetLayout.dataset, body)
      : await store.putIfMatch(datasetLayout.dataset, body, etag);
  return put.outcome === "written";
}

/** What all rows of a dataset have in common. */
export const contentOf = ({ task, engines, format }: JobSpec): string =>
  digestOf([task, ...engines.map(({ digest }) => digest), format]);

/** Every run that has written anything, in the order of their names. A listing each: their own objects are passed over. */
export async function listRuns(store: Store): Promise<string[]> {
  const runs: string[] = [];
  const { runs: prefix } = datasetLayout;
  const next = async (after: string | null) => {
    for await (const { key } of store.list({ prefix, ...(after !== null && { after }) })) {
      const name = key.slice(prefix.length);
      if (name.includes("/")) return name.slice(0, name.indexOf("/"));
    }
    return null;
  };
  // 0 is the character after the slash: no object of the run itself comes behind it.
  for (let run = await next(null); run !== null; run = await next(`${prefix}${run}0`)) runs.push(run);
  return runs.sort();
}
