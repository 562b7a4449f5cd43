/** What must hold when all is over: every row once and right, and nothing left that should not be. */

import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { isDeepStrictEqual } from "node:util";
import { layout, type ResultRow } from "@capfleet/shared/contract";
import { rowKey } from "@capfleet/shared/datasets";
import { redisPrefix } from "@capfleet/shared/queues";
import { extract } from "tar-stream";
import { readSummary } from "../../packages/producer/src/jobs/status.ts";
import { answerOf, type ChaosJob, type Corpus, SHARD_SIZE } from "./jobs.ts";
import type { World } from "./world.ts";

export interface Verdict {
  rows: number;
  lost: number;
  doubled: number;
  wrong: number;
  /** What is wrong, in words. */
  problems: string[];
  leftoverObjects: string[];
}

/** Reads a job's output, whole, past the proxy. */
export async function checkJob(job: ChaosJob, corpus: Corpus): Promise<Verdict> {
  const verdict: Verdict = { rows: 0, lost: 0, doubled: 0, wrong: 0, problems: [], leftoverObjects: [] };
  const wrong = (what: string) => {
    verdict.wrong += 1;
    verdict.problems.push(`${job.id}: ${what}`);
  };
  const seen = new Map<string, number>();
  const shards = Math.ceil(job.records / SHARD_SIZE);
  const known = new Set<string>([layout.job, layout.plan, layout.summary, layout.success, layout.rollup(0)]);
  for (let shard = 0; shard < shards; shard++) {
    known.add(layout.shard(shard)).add(layout.result(shard));
    const rows = await job.rowsOf(shard);
    for (const [i, row] of rows.entries()) {
      seen.set(row.id, (seen.get(row.id) ?? 0) + 1);
      verdict.rows += 1;
      const id = shard * SHARD_SIZE + i;
      const expected = corpus.answers.get(row.image!);
      const isOther = row.id !== String(id) || !row.image!.endsWith(`/${corpus.names[id % corpus.names.length]}`);
      if (isOther || !isDeepStrictEqual(answerOf(row), expected)) wrong(`row ${id} is ${JSON.stringify(row)}`);
      if (row.data) known.add(row.data);
    }
    const file = rows.find(({ data }) => data)?.data;
    if (job.format !== "jsonl" && rows.length > 0 && file === undefined) wrong(`shard ${shard} names no file`);
    if (job.format === "webdataset" && file !== undefined)
      for (const what of await checkTar(job, shard, rows, file, corpus)) wrong(what);
  }
  for (let id = 0; id < job.records; id++) if (!seen.has(String(id))) verdict.lost += 1;
  for (const times of seen.values()) verdict.doubled += times - 1;
  if (verdict.lost > 0) verdict.problems.push(`${job.id}: ${verdict.lost} rows are lost`);
  if (verdict.doubled > 0) verdict.problems.push(`${job.id}: ${verdict.doubled} rows are there twice`);

  const summary = await readSummary(job.store);
  const failed = (2 / corpus.names.length) * job.records;
  if (summary?.rows !== job.records || Math.abs(summary.failed - failed) > 2)
    wrong(`summary.json says ${summary?.rows} rows, ${summary?.failed} failed, of ${job.records} records`);
  for await (const { key } of job.store.list()) {
    if (!known.delete(key)) verdict.leftoverObjects.push(job.store.uriOf(key));
  }
  for (const key of known) wrong(`${key} is missing`);
  return verdict;
}

/** A tar has each labelled row's image, to the byte, and no other. */
async function checkTar(
  job: ChaosJob,
  shard: number,
  rows: ResultRow[],
  file: string,
  corpus: Corpus,
): Promise<string[]> {
  const images = new Map<string, Buffer>();
  const found = await job.store.read(file).catch(() => null);
  if (!found) return []; // it is missing, and counted as such
  for await (const entry of Readable.from([found.bytes]).pipe(extract())) {
    const bytes = await buffer(entry);
    const [key, ending] = entry.header.name.split(".") as [string, string];
    if (ending !== "json" && ending !== "txt") images.set(key, bytes);
  }
  const wrong: string[] = [];
  for (const [i, row] of rows.entries()) {
    if (row.error) continue;
    const key = rowKey(shard, i);
    const image = corpus.images.get(row.image!.split("/").at(-1)!)!;
    if (!images.get(key)?.equals(image)) wrong.push(`${file} has another image for row ${row.id}`);
    images.delete(key);
  }
  if (images.size > 0) wrong.push(`${file} has images of no row: ${[...images.keys()].join()}`);
  return wrong;
}

/** Keys that would stay for ever: none may be but BullMQ's own few of each queue. */
export async function leftoverKeys(world: World): Promise<string[]> {
  const own = /:(meta|events|id|marker|stalled-check)$/;
  return world.onRedis(async (redis) => {
    const left: string[] = [];
    for (const key of await redis.keys("*")) {
      if (own.test(key) || key === `${redisPrefix()}:workers`) continue;
      if ((await redis.pttl(key)) === -1) left.push(key);
    }
    return left;
  });
}
