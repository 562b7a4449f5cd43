/** A checkpoint in object storage, as the objects directly below a prefix. */
import { createHash } from "node:crypto";
import { CapfleetError } from "../contract/errors.ts";
import type { ObjectInfo, Store } from "../storage/index.ts";
import { checkpointFiles } from "./files.ts";
import type { Remote, RemoteFile } from "./remote.ts";

export class BucketModel implements Remote {
  readonly id: string;
  readonly asked = null;
  readonly pinned = null;
  readonly #store: Store;

  constructor(store: Store) {
    this.id = store.uri;
    this.#store = store;
  }

  /** Names, sizes and ETags: another file in place of one is another version. */
  async version(): Promise<string> {
    return versionOf(await this.#objects());
  }

  async files(version: string): Promise<RemoteFile[]> {
    const objects = await this.#objects();
    if (versionOf(objects) !== version)
      throw new CapfleetError("SOURCE_CHANGED", `${this.id} changes while it is read`);
    return objects.map(({ key, size, etag }) => ({
      name: key,
      size,
      // An ETag is a sum of the bytes in some stores and of some uploads only; it says which object this is.
      checksum: null,
      open: (start, signal) => this.#read(key, { range: { start }, ifMatch: etag, signal }),
    }));
  }

  async #objects(): Promise<ObjectInfo[]> {
    const found = new Map<string, ObjectInfo>();
    for await (const object of this.#store.list()) if (!object.key.includes("/")) found.set(object.key, object);
    if (!found.has("config.json")) {
      throw new CapfleetError("MODEL_NOT_FOUND", `${this.id} holds no checkpoint: there is no config.json`);
    }
    return checkpointFiles([...found.keys()]).map((name) => found.get(name)!);
  }

  async *#read(key: string, options: Parameters<Store["stream"]>[1]): AsyncGenerator<Uint8Array> {
    yield* (await this.#store.stream(key, options)).body;
  }
}

function versionOf(objects: readonly ObjectInfo[]): string {
  const lines = objects.map(({ key, size, etag }) => `${key} ${size} ${etag}`);
  return createHash("sha256").update(lines.join("\n")).digest("hex");
}
