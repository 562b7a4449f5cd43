/** Samples as a tar that WebDataset's readers take: of each its image, its text and its json, one after the other. */
import { type Pack, pack } from "tar-stream";
import type { SampleFiles } from "./samples.ts";

export interface SampleWithImage extends SampleFiles {
  /** The image's bytes as they are in the source; `ending` is what they are. */
  image: Uint8Array;
  ending: string;
}

/** The tar's bytes; no clock, user or machine has a part in them. One sample at a time is in memory. */
export async function* tarFile(samples: AsyncIterable<SampleWithImage>): AsyncGenerator<Uint8Array> {
  const tar = pack();
  const filled = fill(tar, samples).catch((thrown: Error) => tar.destroy(thrown));
  yield* tar as AsyncIterable<Uint8Array>;
  await filled;
}

async function fill(tar: Pack, samples: AsyncIterable<SampleWithImage>): Promise<void> {
  for await (const { key, image, ending, text, json } of samples) {
    await add(tar, `${key}.${ending}`, image);
    if (text !== null) await add(tar, `${key}.txt`, text);
    await add(tar, `${key}.json`, JSON.stringify(json));
  }
  tar.finalize();
}

function add(tar: Pack, name: string, body: Uint8Array | string): Promise<void> {
  const bytes = typeof body === "string" ? Buffer.from(body) : Buffer.from(body.buffer, body.byteOffset, body.length);
  const header = { name, mtime: new Date(0), mode: 0o644, uid: 0, gid: 0 };
  return new Promise((resolve, reject) => {
    tar.entry(header, bytes, (error) => (error ? reject(error) : resolve()));
  });
}
