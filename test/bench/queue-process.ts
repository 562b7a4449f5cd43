/** Workers with an engine that does nothing, so many in this process; see queue.ts. Ends with whoever started it. */
import { storesFromEnv } from "@capfleet/shared/storage";
import { NullWorker } from "../support/null-fleet.ts";

export interface NullWorkers {
  first: number;
  count: number;
  slots: number;
  state: string;
  redisUrl: string;
}

const { first, count, slots, ...place } = JSON.parse(process.argv[2]!) as NullWorkers;
const stores = storesFromEnv();
const workers = Array.from(
  { length: count },
  (_, i) => new NullWorker(`null-${first + i}`, slots, { stores, ...place }),
);
for (const worker of workers) await worker.start();
process.once("disconnect", () => process.exit(0));
