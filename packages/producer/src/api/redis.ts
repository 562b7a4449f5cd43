import { CapfleetError } from "@capfleet/shared/contract";

/** Throws REDIS_UNREACHABLE where Redis does not answer, or not in time. */
export async function fromRedis<T>(answer: Promise<T>): Promise<T> {
  return answer.catch((cause: Error) => {
    throw new CapfleetError("REDIS_UNREACHABLE", "the fleet's Redis does not answer", { cause });
  });
}
