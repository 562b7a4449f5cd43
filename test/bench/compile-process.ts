/** Compiles a checkpoint: node compile-process.ts <checkpoint> <precision> <out> prints seconds and peak memory in MB. */
import type { Precision } from "@capfleet/shared/contract";
import { engineRef } from "@capfleet/shared/models";
import { compileEngine } from "@capfleet/worker/blip";

const [checkpoint, precision, out] = process.argv.slice(2) as [string, Precision, string];
const before = performance.now();
await compileEngine(checkpoint, engineRef("large", "random", precision), out);
const seconds = (performance.now() - before) / 1_000;
console.log(JSON.stringify({ seconds, peakMb: process.resourceUsage().maxRSS / 1e3 }));
