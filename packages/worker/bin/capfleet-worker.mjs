#!/usr/bin/env node
import { availableParallelism } from "node:os";
import { main } from "../../../scripts/node24.mjs";

// Decoding runs on libuv's threads, of which there are 4 unless this says otherwise before the first is started: one for
// each core, and some for files and names.
process.env.UV_THREADPOOL_SIZE ??= String(availableParallelism() + 4);

main(new URL("../src/main.ts", import.meta.url));
