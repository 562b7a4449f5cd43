/** A process that writes to a store: `writer.ts MODE STORE_URI`. It says "ready", waits for a line on stdin, and works. */

import { once } from "node:events";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { storesFromEnv } from "../../src/storage/index.ts";

const [mode, uri] = process.argv.slice(2) as [string, string];
const stores = storesFromEnv();
const store = stores.at(uri);
await store.stat("warm-up");
console.log("ready");
await once(process.stdin, "data");

if (mode === "put-if-absent") {
  for (let i = 0; i < 25; i++) {
    const { outcome } = await store.putIfAbsent(`key-${i}`, `${process.pid}`);
    if (outcome === "written") console.log(`key-${i} ${process.pid}`);
  }
} else if (mode === "increment") {
  for (let done = 0; done < 25; ) {
    const { bytes, etag } = await store.read("counter");
    // One digit for ever: neither size nor, within a tick of the clock, time would tell the versions apart.
    const { outcome } = await store.putIfMatch("counter", String((Number(bytes) + 1) % 10), etag);
    if (outcome === "written") done++;
  }
} else if (mode === "die-in-rename") {
  fs.renameSync = () => process.kill(process.pid, "SIGKILL");
  syncBuiltinESMExports();
  await store.put("x", "never seen");
}
stores.close();
