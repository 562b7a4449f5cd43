/** Counting an input for as long as somebody is ready to wait. */
import { CapfleetError, type Input } from "@capfleet/shared/contract";
import { countRecords } from "@capfleet/shared/datasets";
import type { Stores } from "@capfleet/shared/storage";
import { checkPrefix, parseInput, resolveInput } from "../plan/input.ts";

export interface Counted {
  records: number;
  /** False where the time was over first: there are more. */
  isWhole: boolean;
}

export interface Counting {
  /** Null: to the end. */
  withinMs: number | null;
  onCount?(records: number): void;
}

/** Throws what reading the input throws. */
export async function countWithin(input: Input, stores: Stores, { withinMs, onCount }: Counting): Promise<Counted> {
  const numbers = countRecords(input, stores);
  const late = Promise.withResolvers<null>();
  const timer = withinMs === null ? undefined : setTimeout(() => late.resolve(null), withinMs);
  let records = 0;
  try {
    for (;;) {
      const next = await Promise.race([numbers.next(), late.promise]);
      if (!next || next.done) return { records, isWhole: next !== null };
      records += next.value;
      onCount?.(records);
    }
  } finally {
    clearTimeout(timer);
    // It may be in the middle of a request: nobody waits for that.
    void numbers.return(undefined).catch(() => {});
  }
}

/** As it was given. Throws INPUT_NOT_FOUND, INPUT_EMPTY, COUNT_TIMEOUT, and what reading it throws. */
export async function countInput(given: string, stores: Stores, counting: Counting): Promise<number> {
  const input = await resolveInput(parseInput(given), stores);
  if (input.kind === "prefix") await checkPrefix(input.uri, stores);
  const { records, isWhole } = await countWithin(input, stores, counting);
  if (!isWhole)
    throw new CapfleetError("COUNT_TIMEOUT", `${given} has more than ${records} records; counting them takes longer`);
  if (records === 0) throw new CapfleetError("INPUT_EMPTY", `${input.uri} holds no images, or no records`);
  return records;
}
