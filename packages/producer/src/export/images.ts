/** The samples of a tar: each labelled row with its image, fetched a few ahead. */
import { CapfleetError, type JobTaskSpec, type ResultRow } from "@capfleet/shared/contract";
import {
  fetchImage,
  imageEnding,
  type KeyedRow,
  type SampleFiles,
  type SampleWithImage,
  samplesOf,
} from "@capfleet/shared/datasets";
import type { Stores } from "@capfleet/shared/storage";
import { ahead } from "./ahead.ts";

const IMAGES_AHEAD = 8;
/** Of images that are there before their turn; what is under way by then comes on top. */
const BYTES_AHEAD = 64 * 1024 * 1024;

export interface ImageContext {
  stores: Stores;
  maxImageBytes: number;
}

/**
 * `failed` gets the rows whose image can't be read any more, with the reason. Throws the stores' errors: they say nothing
 * about one image.
 */
export async function* withImages(
  task: JobTaskSpec,
  rows: AsyncIterable<KeyedRow[]>,
  { stores, maxImageBytes }: ImageContext,
  failed: (row: ResultRow) => Promise<void>,
): AsyncGenerator<SampleWithImage> {
  let held = 0;
  const fetch = async ({ one, samples }: Wanted) => {
    try {
      const { bytes } = await fetchImage(one.record, stores, maxImageBytes);
      const ending = imageEnding(bytes, one.record.member?.name ?? one.record.image!);
      held += bytes.length;
      return { samples, image: bytes, ending };
    } catch (thrown) {
      if (!(thrown instanceof CapfleetError) || thrown.scope !== "row") throw thrown;
      const { code, message, retryable } = thrown;
      const { id, image, member, kept } = one.row;
      const error = { code, message, retryable };
      return { row: { id, image, ...(member && { member }), ...(kept && { kept }), error } };
    }
  };
  for await (const found of ahead(wanted(task, rows), IMAGES_AHEAD, fetch, () => held >= BYTES_AHEAD)) {
    if ("row" in found) {
      await failed(found.row);
      continue;
    }
    const { samples, image, ending } = found;
    for (const sample of samples) yield { ...sample, image, ending };
    held -= image.length;
  }
}

interface Wanted {
  one: KeyedRow;
  samples: SampleFiles[];
}

/** Rows of which something is written. */
async function* wanted(task: JobTaskSpec, rows: AsyncIterable<KeyedRow[]>): AsyncGenerator<Wanted> {
  for await (const chunk of rows) {
    for (const one of chunk) {
      const samples = samplesOf(task, one);
      if (samples.length > 0) yield { one, samples };
    }
  }
}
