/** Parquet's values as JSON has them. */
import type { ParquetParsers } from "hyparquet";
import type { Json } from "./fields.ts";

/** ISO 8601, with all digits of the unit where they are not zero. A time beyond the calendar's years is its number. */
export const parsers: Partial<ParquetParsers> = {
  timestampFromMilliseconds: (millis) => isoText(BigInt(millis), 1_000n, 3),
  timestampFromMicroseconds: (micros) => isoText(BigInt(micros), 1_000_000n, 6),
  timestampFromNanoseconds: (nanos) => isoText(BigInt(nanos), 1_000_000_000n, 9),
  dateFromDays: (days) => isoText(BigInt(days) * 86_400n, 1n, 0).replace("T00:00:00Z", ""),
  jsonFromBytes: (bytes) => parseJson(new TextDecoder().decode(bytes)),
};

function isoText(value: bigint, perSecond: bigint, digits: number): string {
  const part = ((value % perSecond) + perSecond) % perSecond;
  const date = new Date(Number((value - part) / perSecond) * 1_000);
  if (Number.isNaN(date.getTime())) return String(value);
  const fraction = part === 0n ? "" : `.${String(part).padStart(digits, "0")}`;
  return date.toISOString().replace(".000Z", `${fraction}Z`);
}

/** A JSON column may hold what is none. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Whole numbers beyond 2^53 become text, and what is no number null. A local time has no Z. Bytes are not among the values. */
export function toJson(value: unknown, isLocalTime = false): Json {
  if (typeof value === "string") return isLocalTime ? value.replace("Z", "") : value;
  if (typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (typeof value === "bigint") return isSafe(value) ? Number(value) : String(value);
  if (typeof value !== "object" || value === null) return null;
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return Array.from(value as unknown[], (part) => toJson(part));
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, toJson(part)]));
}

const isSafe = (value: bigint) => value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
