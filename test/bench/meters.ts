/** What processes and Redis have used so far; the difference of two readings is what was used between them. */
import { readdirSync, readFileSync } from "node:fs";
import type { Redis } from "ioredis";

/** Of Linux, on all common machines. */
const TICKS_PER_SECOND = 100;

/** Processor time of a process, its own and the system's, in seconds. */
export function cpuSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name before may hold anything, brackets too.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Files, sockets and pipes that a process has open. */
export const openHandles = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

export interface RedisMeter {
  commands: number;
  cpuSeconds: number;
  /** In both directions. */
  networkBytes: number;
  /** What is stored, without what connections and the server itself take. */
  dataBytes: number;
  keys: number;
}

export async function readRedis(redis: Redis): Promise<RedisMeter> {
  const info = await redis.info();
  const field = (name: string) => Number(new RegExp(`^${name}:([\\d.]+)`, "m").exec(info)![1]);
  return {
    commands: field("total_commands_processed"),
    cpuSeconds: field("used_cpu_user") + field("used_cpu_sys"),
    networkBytes: field("total_net_input_bytes") + field("total_net_output_bytes"),
    dataBytes: field("used_memory_dataset"),
    keys: await redis.dbsize(),
  };
}
