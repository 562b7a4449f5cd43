/** Devices that engines run on, and the precision that suits each. */
import { CapfleetError } from "../contract/errors.ts";
import type { Precision } from "../contract/job.ts";

export interface Device {
  provider: "cpu" | "cuda";
  /** Which one of several. */
  id: number;
}

/** `cpu`, `cuda` or `cuda:N`. Throws INVALID_OPTION. */
export function parseDevice(given: string): Device {
  const found = /^(?:cpu|cuda(?::(\d{1,3}))?)$/.exec(given);
  if (!found) throw new CapfleetError("INVALID_OPTION", `--device ${given}: expected cpu, cuda or cuda:N`);
  return { provider: given === "cpu" ? "cpu" : "cuda", id: Number(found[1] ?? 0) };
}

/** What was asked for; else float16 on a GPU and 8 bits on a CPU. */
export const choosePrecision = (device: string, given?: Precision): Precision =>
  given ?? (parseDevice(device).provider === "cuda" ? "fp16" : "int8");
