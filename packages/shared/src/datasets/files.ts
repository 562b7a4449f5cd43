/**
 * Which files an input means: one, those of a range such as `part-{00000..00099}.parquet`, or, of tars and Parquet files,
 * all below a prefix.
 */
import { CapfleetError } from "../contract/errors.ts";
import type { Input } from "../contract/job.ts";
import type { ObjectInfo, Store, Stores } from "../storage/index.ts";

const TAR_NAME = /\.tar$/i;
/** As Spark and Arrow read folders: what begins with `_` or `.` is not data. */
const PARQUET_NAME = /^([^._/][^/]*\/)*[^._/][^/]*\.parquet$/i;
const IMAGE_NAME = /\.(jpe?g|png|webp|gif|tiff?|avif)$/i;
const RANGE = /\{(\d+)\.\.(\d+)\}/;
const MAX_FILES = 100_000;
/** As many as one request lists. */
const LOOKED_AT = 1_000;

export interface Files {
  store: Store;
  /** Throws INPUT_NOT_FOUND where there is none, or one of a range is missing; INVALID_URI for a range that is none. */
  check(): Promise<void>;
  /**
   * In their order, from a cursor's file on (null: all). Throws SOURCE_CHANGED where that file is no longer the one that it
   * was, and INPUT_NOT_FOUND.
   */
  list(from: { file: string; etag: string } | null): AsyncGenerator<ObjectInfo>;
  /** What a row's id may call a file: its key, from where the keys of these files differ in. */
  nameOf(key: string): string;
  /** Whether an input could mean more than one. */
  areSeveral: boolean;
}

/** What a prefix holds, by the first 1,000 objects of its listing: images, else tars, else Parquet files. */
export async function kindOfPrefix(store: Store): Promise<"prefix" | "webdataset" | "parquet"> {
  let looked = 0;
  let kind: "prefix" | "webdataset" | "parquet" = "prefix";
  for await (const { key } of store.list()) {
    if (IMAGE_NAME.test(key)) return "prefix";
    if (TAR_NAME.test(key)) kind = "webdataset";
    else if (kind === "prefix" && PARQUET_NAME.test(key)) kind = "parquet";
    looked += 1;
    if (looked === LOOKED_AT) break;
  }
  return kind;
}

export function openFiles({ kind, uri }: Pick<Input, "kind" | "uri">, stores: Stores): Files {
  if (uri.endsWith("/")) return filesBelow(stores.at(uri), kind === "parquet" ? PARQUET_NAME : TAR_NAME);
  const { store, key } = stores.object(uri);
  return RANGE.test(key) ? filesOfRange(store, key) : oneFile(store, key);
}

function filesBelow(store: Store, pattern: RegExp): Files {
  const after = async function* (key: string | null) {
    for await (const object of store.list(key === null ? {} : { after: key })) {
      if (pattern.test(object.key)) yield object;
    }
  };
  return {
    store,
    async check() {
      for await (const _ of after(null)) return;
      throw new CapfleetError("INPUT_NOT_FOUND", `${store.uri} holds no files of the kind it was taken for`);
    },
    list: (from) => listFrom(store, from, after),
    nameOf: (key) => key,
    areSeveral: true,
  };
}

function filesOfRange(store: Store, key: string): Files {
  const uri = store.uriOf(key);
  const before = key.slice(0, RANGE.exec(key)!.index);
  const after = async function* (last: string | null) {
    let isAfter = last === null;
    for (const name of expand(uri, key)) {
      if (isAfter) yield await existing(store, name);
      isAfter ||= name === last;
    }
  };
  return {
    store,
    async check() {
      const absent = new Set(expand(uri, key));
      for await (const object of store.list({ prefix: before })) absent.delete(object.key);
      const [name] = absent;
      if (name !== undefined) throw missing(store, name);
    },
    list: (from) => listFrom(store, from, after),
    nameOf: (name) => name.slice(before.lastIndexOf("/") + 1),
    areSeveral: true,
  };
}

function oneFile(store: Store, key: string): Files {
  return {
    store,
    async check() {
      await existing(store, key);
    },
    list: (from) =>
      listFrom(store, from, async function* (last) {
        if (last === null) yield await existing(store, key);
      }),
    nameOf: (name) => name.slice(name.lastIndexOf("/") + 1),
    areSeveral: false,
  };
}

async function* listFrom(
  store: Store,
  from: { file: string; etag: string } | null,
  after: (key: string | null) => AsyncGenerator<ObjectInfo>,
): AsyncGenerator<ObjectInfo> {
  if (from) {
    const object = await store.stat(from.file);
    if (object?.etag !== from.etag) {
      throw new CapfleetError("SOURCE_CHANGED", `${store.uriOf(from.file)} has changed since its job was planned`);
    }
    yield object;
  }
  yield* after(from?.file ?? null);
}

async function existing(store: Store, key: string): Promise<ObjectInfo> {
  const object = await store.stat(key);
  if (!object) throw missing(store, key);
  return object;
}

const missing = (store: Store, key: string) =>
  new CapfleetError("INPUT_NOT_FOUND", `${store.uriOf(key)} does not exist`);

/** As the shell does: leading zeros make all numbers as long as the longer of the two. */
function* expand(uri: string, key: string): Generator<string> {
  const range = RANGE.exec(key)!;
  const [braces, from, to] = range as unknown as [string, string, string];
  const before = key.slice(0, range.index);
  const after = key.slice(range.index + braces.length);
  const first = Number(from);
  const last = Number(to);
  const refuse = (why: string) => new CapfleetError("INVALID_URI", `${uri}: ${why}`);
  if (RANGE.test(after)) throw refuse("only one range {…} can be given");
  if (last < first) throw refuse(`the range ${braces} runs backwards`);
  if (last - first >= MAX_FILES) throw refuse(`the range ${braces} has more than ${MAX_FILES} numbers`);
  const isPadded = [from, to].some((number) => number.length > 1 && number.startsWith("0"));
  const digits = isPadded ? Math.max(from.length, to.length) : 0;
  for (let number = first; number <= last; number++) yield before + String(number).padStart(digits, "0") + after;
}
