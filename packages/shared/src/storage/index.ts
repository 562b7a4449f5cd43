export { checkedLookup, mayConnect, mayName, type Network, parseNetwork } from "./addresses.ts";
export { FileStore } from "./file.ts";
export { compareKeys } from "./key.ts";
export { probeConditionalWrites } from "./probe.ts";
export { Spool, type Spooled } from "./spool.ts";
export type {
  ListOptions,
  ObjectInfo,
  PutIfAbsentResult,
  PutIfMatchResult,
  PutOptions,
  ReadOptions,
  Store,
  StreamOptions,
} from "./store.ts";
export { type StoreConfig, Stores, storesFromEnv } from "./stores.ts";
export { asFolder, contains, formatUri, isHttps, type Location, normalizeUri, parseUri, resolveUri } from "./uri.ts";
