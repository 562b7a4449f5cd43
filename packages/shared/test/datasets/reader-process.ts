/** Reads a dataset to its end, as the planner does, and says how many records there were. */
import { inputSchema } from "../../src/contract/index.ts";
import { type ManifestKind, manifestDataset, webdatasetDataset } from "../../src/datasets/index.ts";
import { storesFromEnv } from "../../src/storage/index.ts";
import { caption } from "./tasks.ts";

const [, , kind, uri] = process.argv as [string, string, string, string];
const input = inputSchema.parse({ kind, uri });
const stores = storesFromEnv({});
const dataset =
  kind === "webdataset"
    ? webdatasetDataset(input, stores, caption)
    : manifestDataset({ ...input, kind: kind as ManifestKind }, stores, caption);
let count = 0;
for await (const entries of dataset.entries(null)) count += entries.length;
console.log(count);
