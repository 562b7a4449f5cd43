#!/usr/bin/env node
import { availableParallelism } from "node:os";
import { main } from "../../../scripts/node24.mjs";

// Decoding runs on libuv's threads, of which there are 4 unless this says otherwise before the first is started: one for
// each core, and some for files and names.
process.env.UV_THREADPOOL_SIZE ??= String(availableParallelism() + 4);

// glibc gives each thread a heap of its own, and what is freed in one serves no other: the worker would hold more than it uses. It
// reads this when a process starts, so the process starts again, with the same id. (Node 20 can't; there `main` starts
// another process anyway.)
if (process.env.MALLOC_ARENA_MAX === undefined) {
  process.env.MALLOC_ARENA_MAX = "2";
  process.execve?.(process.execPath, [process.execPath, ...process.argv.slice(1)], process.env);
}

main(new URL("../src/main.ts", import.meta.url));
