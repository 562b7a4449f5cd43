/** Which tars an input means: all below a prefix, one, or those of a range such as `{00000..00099}.tar`. */
import { CapfleetError } from "../contract/errors.ts";
import type { Input } from "../contract/job.ts";
import type { ObjectInfo, Store, Stores } from "../storage/index.ts";

const TAR_NAME = /\.tar$/i;
const IMAGE_NAME = /\.(jpe?g|png|webp|gif|tiff?|avif)$/i;
const RANGE = /\{(\d+)\.\.(\d+)\}/;
const MAX_TARS = 100_000;
/** As many as one request lists. */
const LOOKED_AT = 1_000;

export interface Tars {
  store: Store;
  /** Throws INPUT_NOT_FOUND where there is none, or one of a range is missing; INVALID_URI for a range that is none. */
  check(): Promise<void>;
  /** In their order, after the one with the key `after` (null: all). Throws INPUT_NOT_FOUND. */
  list(after: string | null): AsyncGenerator<ObjectInfo>;
}

/** Whether a prefix is one of tar shards: tars are among its first 1,000 objects, and no images. */
export async function holdsTars(store: Store): Promise<boolean> {
  let looked = 0;
  let found = false;
  for await (const { key } of store.list()) {
    if (IMAGE_NAME.test(key)) return false;
    found ||= TAR_NAME.test(key);
    looked += 1;
    if (looked === LOOKED_AT) break;
  }
  return found;
}

export function openTars(input: Input, stores: Stores): Tars {
  if (input.uri.endsWith("/")) return tarsBelow(stores.at(input.uri));
  const { store, key } = stores.object(input.uri);
  return tarsNamed(store, key);
}

function tarsBelow(store: Store): Tars {
  const tars: Tars = {
    store,
    async check() {
      for await (const _ of tars.list(null)) return;
      throw new CapfleetError("INPUT_NOT_FOUND", `${store.uri} holds no tars`);
    },
    async *list(after) {
      for await (const object of store.list(after === null ? {} : { after })) {
        if (TAR_NAME.test(object.key)) yield object;
      }
    },
  };
  return tars;
}

function tarsNamed(store: Store, key: string): Tars {
  const missing = (name: string) => new CapfleetError("INPUT_NOT_FOUND", `${store.uriOf(name)} does not exist`);
  return {
    store,
    async check() {
      const there = new Set<string>();
      const prefix = key.slice(0, RANGE.exec(key)?.index ?? key.length);
      for await (const object of store.list({ prefix })) if (TAR_NAME.test(object.key)) there.add(object.key);
      for (const name of expand(store.uriOf(key), key)) if (!there.has(name)) throw missing(name);
    },
    async *list(after) {
      let isAfter = after === null;
      for (const name of expand(store.uriOf(key), key)) {
        if (isAfter) {
          const object = await store.stat(name);
          if (!object) throw missing(name);
          yield object;
        }
        isAfter ||= name === after;
      }
    },
  };
}

/** As the shell does: leading zeros make all numbers as long as the longer of the two. */
function* expand(uri: string, key: string): Generator<string> {
  const range = RANGE.exec(key);
  if (!range) return yield key;
  const [braces, from, to] = range as unknown as [string, string, string];
  const before = key.slice(0, range.index);
  const after = key.slice(range.index + braces.length);
  const first = Number(from);
  const last = Number(to);
  const refuse = (why: string) => new CapfleetError("INVALID_URI", `${uri}: ${why}`);
  if (RANGE.test(after)) throw refuse("only one range {…} can be given");
  if (last < first) throw refuse(`the range ${braces} runs backwards`);
  if (last - first >= MAX_TARS) throw refuse(`the range ${braces} has more than ${MAX_TARS} numbers`);
  const isPadded = [from, to].some((number) => number.length > 1 && number.startsWith("0"));
  const digits = isPadded ? Math.max(from.length, to.length) : 0;
  for (let number = first; number <= last; number++) yield before + String(number).padStart(digits, "0") + after;
}
