/**
 * Compiled engines in object storage, so that one machine compiles and the others download:
 *
 *     <engines>/<digest>/files/<sha256>   the engine's files, by their content: whoever uploads one uploads the same
 *     <engines>/<digest>/manifest.json    their names, sizes and sums; written last, once: with it the engine is there
 *
 * An engine is a folder of files here, whatever they are.
 */
import { createReadStream, existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { CapfleetError, type EngineRef, engineRefSchema } from "@capfleet/shared/contract";
import { checksumOf, type FetchListener, fetchFolder, type RemoteFile } from "@capfleet/shared/models";
import type { Store } from "@capfleet/shared/storage";
import * as z from "zod";

const MAX_MANIFEST = 1 << 20;
const manifestSchema = z.object({
  schema: z.literal(1),
  ref: engineRefSchema,
  files: z.array(
    z.object({
      name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/),
      size: z.number().int().min(0),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
});
type Manifest = z.infer<typeof manifestSchema>;

const manifestKey = (digest: string) => `${digest}/manifest.json`;
const fileKey = (digest: string, sha256: string) => `${digest}/files/${sha256}`;

/** Whether the folder holds a compiled engine: engine.json is in it once the rest is. */
export const isEngine = (folder: string) => existsSync(join(folder, "engine.json"));

/**
 * Uploads the compiled engine in `folder`. What an interrupted upload has left there is not uploaded again. Returns
 * false where the engine had been published already. Throws the store's errors.
 */
export async function publishEngine(
  folder: string,
  ref: EngineRef,
  engines: Store,
  listener: FetchListener,
): Promise<boolean> {
  if (await engines.stat(manifestKey(ref.digest))) return false;
  const files: Manifest["files"] = [];
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    files.push({ name, size: (await stat(path)).size, sha256: await checksumOf(path, "sha256") });
  }
  const manifest = manifestSchema.parse({ schema: 1, ref, files });
  const total = files.reduce((sum, { size }) => sum + size, 0);
  let received = 0;
  for (const { name, size, sha256 } of files) {
    const key = fileKey(ref.digest, sha256);
    if ((await engines.stat(key))?.size !== size) await engines.putStream(key, createReadStream(join(folder, name)));
    received += size;
    listener.progress?.({ file: name, received, total });
  }
  const { outcome } = await engines.putIfAbsent(manifestKey(ref.digest), JSON.stringify(manifest, null, 2));
  return outcome === "written";
}

/**
 * Downloads the engine `digest` into `folder`, which appears whole or not at all. Returns its ref; null where it has
 * not been published. Throws DOWNLOAD_CORRUPT, DISK_FULL and the store's errors.
 */
export async function pullEngine(
  digest: string,
  engines: Store,
  folder: string,
  listener: FetchListener,
): Promise<EngineRef | null> {
  const manifest = await readManifest(digest, engines);
  if (manifest === null) return null;
  const files = manifest.files.map(
    ({ name, size, sha256 }): RemoteFile => ({
      name,
      size,
      checksum: { kind: "sha256", hex: sha256 },
      async *open(start, signal) {
        yield* (await engines.stream(fileKey(digest, sha256), { range: { start }, signal })).body;
      },
    }),
  );
  await fetchFolder({ target: folder, files, isWhole: async () => isEngine(folder) }, listener);
  return manifest.ref;
}

async function readManifest(digest: string, engines: Store): Promise<Manifest | null> {
  const key = manifestKey(digest);
  if (!(await engines.stat(key))) return null;
  const { bytes } = await engines.read(key, { maxBytes: MAX_MANIFEST });
  try {
    const manifest = manifestSchema.parse(JSON.parse(bytes.toString("utf8")));
    if (manifest.ref.digest === digest && manifest.files.some(({ name }) => name === "engine.json")) return manifest;
  } catch (cause) {
    throw new CapfleetError("DOWNLOAD_CORRUPT", `${engines.uriOf(key)} is no engine's manifest`, { cause });
  }
  throw new CapfleetError("DOWNLOAD_CORRUPT", `${engines.uriOf(key)} is not the manifest of engine ${digest}`);
}
