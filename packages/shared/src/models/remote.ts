/** A checkpoint, or a compiled engine, that is somewhere else: what the cache has to know about it. */

/** A file's content, by the sum that its source gives for it: sha256 of the bytes, or git's sha1 of a blob. */
export interface Checksum {
  kind: "sha256" | "git";
  hex: string;
}

export interface RemoteFile {
  /** A plain file name. */
  name: string;
  size: number;
  /** Null where the source has none: then the size, and the source's own care for its bytes, have to do. */
  checksum: Checksum | null;
  /** The bytes from `start` on. Throws HUB_UNREACHABLE or STORE_UNAVAILABLE where trying again may help. */
  open(start: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

export interface Remote {
  /** Where it is, without its version: part of the cache's key, and for messages. */
  readonly id: string;
  /** What of it was asked for: a branch, a tag, or null for whatever is there now. */
  readonly asked: string | null;
  /** The version, where the name itself says it, as a commit does; it never changes. */
  readonly pinned: string | null;
  /** The version that is there now. */
  version(): Promise<string>;
  /** The version's files that capfleet wants, of a checkpoint. */
  files(version: string): Promise<RemoteFile[]>;
}

/** Who wants to know how a download goes. */
export interface FetchListener {
  progress?(progress: FetchProgress): void;
  /** Something that a person may want to know, such as that the hub does not answer and the cached copy is used. */
  note?(text: string): void;
}

export interface FetchProgress {
  file: string;
  /** Bytes that are here, of all files together; what an earlier attempt got counts. */
  received: number;
  total: number;
}
