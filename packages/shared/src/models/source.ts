/** What a user means by `--model`: a bundled name, a folder, a bucket's prefix, a hub model, or just a name. */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { BUNDLED_MODELS } from "../config.ts";
import { parseUri } from "../storage/index.ts";

/** `name` is what the model is called in jobs, in the registry and in answers. */
export type ModelSource =
  | { kind: "folder"; name: string; folder: string }
  | { kind: "bucket"; name: string; uri: string }
  /** `revision`: a branch, a tag or a commit; null: the hub's default branch. */
  | { kind: "hub"; name: string; repo: string; revision: string | null }
  /** It can only be known by having been registered. */
  | { kind: "name"; name: string };

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const HUB_ID = /^([A-Za-z0-9][A-Za-z0-9._-]*\/[A-Za-z0-9][A-Za-z0-9._-]*)(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?$/;

/** Bundled names come first, then folders that are there. Throws INVALID_URI. */
export function sourceOf(given: string): ModelSource {
  const bundled = bundledFolder(given);
  if (bundled) return { kind: "folder", name: given, folder: bundled };
  if (/^(s3|file):/i.test(given)) return located(given);
  const folder = resolve(given);
  if (isCheckpoint(folder)) return { kind: "folder", name: basename(folder), folder };
  const [, repo, revision] = HUB_ID.exec(given) ?? [];
  if (repo !== undefined) return { kind: "hub", name: given, repo, revision: revision ?? null };
  return { kind: "name", name: given };
}

/** Null where no model of that name comes with capfleet. */
export function bundledFolder(name: string): string | null {
  const folder = join(BUNDLED_MODELS, name);
  return NAME.test(name) && isCheckpoint(folder) ? folder : null;
}

export const isCheckpoint = (folder: string) => existsSync(join(folder, "config.json"));

function located(uri: string): ModelSource {
  const location = parseUri(uri);
  if (location.scheme === "file") {
    const folder = resolve(location.path);
    return isCheckpoint(folder) ? { kind: "folder", name: basename(folder), folder } : { kind: "name", name: uri };
  }
  return { kind: "bucket", name: basename(location.key) || location.bucket, uri };
}
