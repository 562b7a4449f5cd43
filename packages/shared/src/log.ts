/** Structured logs on stderr, one JSON object a line; CAPFLEET_LOG sets the level (default `info`, or `silent`). */
import { type Logger, pino } from "pino";

export type { Logger };

export function createLog(name: string, level = process.env.CAPFLEET_LOG || "info"): Logger {
  const levels = [...Object.keys(pino.levels.values), "silent"];
  const known = levels.includes(level) ? level : "info";
  return pino({ name, level: known, base: { name, pid: process.pid } }, pino.destination({ fd: 2, sync: true }));
}
