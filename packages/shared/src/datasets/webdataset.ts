/** Tar shards as WebDataset and img2dataset write them: the headers, texts and json are read, the images are not. */
import { CapfleetError } from "../contract/errors.ts";
import type { Input } from "../contract/job.ts";
import type { Cursor, InputRecord } from "../contract/record.ts";
import type { JobTaskSpec } from "../contract/task.ts";
import type { ObjectInfo, Store, Stores } from "../storage/index.ts";
import type { Dataset, Entry } from "./dataset.ts";
import { type Files, openFiles } from "./files.ts";
import { TarBroken, tarMembers } from "./tar.ts";
import { TarBytes } from "./tar-bytes.ts";
import { Sample, splitName, type WantedOfSample, wantedOfSample } from "./webdataset-sample.ts";

const CHUNK = 500;
/** Where none of so many is any good, the input is probably not what the user meant. */
const LOOKED_AT = 100;

/**
 * A record per sample, tar by tar. Its id is the sample's key. A tar that can't be read on is a record with an error,
 * which says where; the next tar follows.
 */
export function webdatasetDataset(input: Input, stores: Stores, task: JobTaskSpec): Dataset {
  const wanted = wantedOfSample(task, input.keep);
  return {
    async *entries(cursor) {
      let chunk: Entry[] = [];
      for await (const entry of readTars(openFiles(input, stores), wanted, cursor)) {
        chunk.push(entry);
        if (chunk.length === CHUNK) {
          yield chunk;
          chunk = [];
        }
      }
      if (chunk.length > 0) yield chunk;
    },
  };
}

/**
 * Throws INPUT_NOT_FOUND, INPUT_EMPTY (no samples), INVALID_URI (a range that is none), TAR_INVALID where none of the
 * first 100 samples is what the task needs or has a field that is to be kept, and the store's errors.
 */
export async function checkWebdataset(input: Input, stores: Stores, task: JobTaskSpec): Promise<void> {
  const tars = openFiles(input, stores);
  await tars.check();
  const wanted = wantedOfSample(task, input.keep);
  const records: InputRecord[] = [];
  for await (const { record } of readTars(tars, wanted, null)) {
    records.push(record);
    if (records.length === LOOKED_AT) break;
  }
  const [first] = records;
  if (!first) throw new CapfleetError("INPUT_EMPTY", `${input.uri} holds no samples`);
  const good = records.filter(({ error }) => !error);
  if (good.length === 0) throw new CapfleetError("TAR_INVALID", `${input.uri}: ${first.id}: ${first.error!.message}`);
  const missing = [
    ...input.keep.filter((field) => !good.some(({ kept }) => kept && Object.hasOwn(kept, field))),
    ...(wanted.column !== null && good.every(({ texts }) => texts?.length === 0) ? [wanted.column] : []),
  ];
  if (missing.length === 0) return;
  const message = `${input.uri}: none of the first ${good.length} samples has \`${missing[0]}\``;
  throw new CapfleetError("TAR_INVALID", message);
}

async function* readTars(tars: Files, wanted: WantedOfSample, cursor: Cursor | null): AsyncGenerator<Entry> {
  const from = cursor?.source === "webdataset" ? { file: cursor.tar, ...cursor } : null;
  for await (const object of tars.list(from)) {
    yield* readTar(tars.store, object, wanted, object.key === from?.file ? from.offset : 0);
  }
}

/** The samples whose files begin at `offset` or after it. One beyond the tar's end: nothing is left of it. */
async function* readTar(
  store: Store,
  object: ObjectInfo,
  wanted: WantedOfSample,
  offset: number,
): AsyncGenerator<Entry> {
  if (offset > object.size) return;
  const { key: tar, etag } = object;
  const uri = store.uriOf(tar);
  const bytes = new TarBytes(store, object);
  let sample: Sample | null = null;
  const done = (next: number): Cursor => ({ source: "webdataset", tar, offset: Math.min(next, object.size + 1), etag });
  const finished = function* () {
    const record = sample?.record({ uri, etag });
    if (record) yield { record, cursor: done(sample!.next) };
    sample = null;
  };
  const broken = (message: string): Entry => {
    const error = { code: "RECORD_INVALID", message: `${uri}: ${message}`, retryable: false };
    return { record: { id: tar, image: null, error }, cursor: done(object.size + 1) };
  };
  try {
    for await (const member of tarMembers(bytes, offset)) {
      const name = member.type === "folder" ? null : splitName(member.name);
      if (name === null) {
        if (member.isWhole) continue;
        yield* finished();
        yield broken(`the tar ends within ${member.name}, which begins at byte ${member.offset}`);
        return;
      }
      if (sample?.key !== name.key) {
        yield* finished();
        sample = new Sample(name.key, wanted);
      }
      await sample.add(member, name.extension, () => bytes.read(member.offset, member.size));
    }
    yield* finished();
  } catch (thrown) {
    if (!(thrown instanceof TarBroken)) throw thrown;
    yield* finished();
    yield broken(thrown.message);
  } finally {
    await bytes.close();
  }
}
