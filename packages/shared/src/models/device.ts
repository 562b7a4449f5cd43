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

/** Their graphs use operators that have kernels on a CPU only, such as DynamicQuantizeMatMul. */
const CPU_ONLY: readonly Precision[] = ["int8", "int4"];

/**
 * What was asked for; else float16 on a GPU and 8 bits on a CPU. Throws INVALID_OPTION: no such device, or one that
 * does not go with the precision.
 */
export function choosePrecision(device: string, given?: Precision): Precision {
  const { provider } = parseDevice(device);
  if (given === undefined) return provider === "cuda" ? "fp16" : "int8";
  if (provider === "cpu" || !CPU_ONLY.includes(given)) return given;
  throw new CapfleetError("INVALID_OPTION", `${given} runs on the CPU only; on ${device} use fp16 or fp32`);
}
