#!/usr/bin/env node
import { availableParallelism } from "node:os";
import { main } from "../../../scripts/node24.mjs";

// Decoding runs on libuv's threads, of which there are 4 unless this says otherwise before the first is started: one for
// each core, and some for files and names.
process.env.UV_THREADPOOL_SIZE ??= String(availableParallelism() + 4);

// Two settings that keep the worker's memory where it is, both read when a process starts, so the process starts again, with
// the same id. (Node 20 can't; there `main` starts another process anyway.) glibc gives each thread a heap of its own, and
// what is freed in one serves no other. V8 lets the space for young objects grow in steps, to 50 MB and more, as records
// and batches happen to outlive its collections; 4 MB cost no speed (docs/performance.md).
if (process.env.MALLOC_ARENA_MAX === undefined) {
  process.env.MALLOC_ARENA_MAX = "2";
  process.env.NODE_OPTIONS = `${process.env.NODE_OPTIONS ?? ""} --max-semi-space-size=4`.trim();
  process.execve?.(process.execPath, [process.execPath, ...process.argv.slice(1)], process.env);
}

main(new URL("../src/main.ts", import.meta.url));
