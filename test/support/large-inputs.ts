/** Large inputs of any kind: manifests, written by DuckDB, and tars of images without bytes. */
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { type DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";

const FORMATS: Record<string, string> = {
  jsonl: "format json",
  csv: "format csv",
  parquet: "format parquet, codec zstd",
};
let connection: Promise<DuckDBConnection> | null = null;

/** Rows with `id` (photo-0, photo-1, …) and `image`, in the format of the path's ending. */
export async function writeManifest(path: string, rows: number): Promise<void> {
  connection ??= DuckDBInstance.create(":memory:").then((instance) => instance.connect());
  const format = FORMATS[path.slice(path.lastIndexOf(".") + 1)]!;
  const image = "'photos/2026/' || (i % 1000) || '/photo-' || i || '.jpg'";
  const query = `select 'photo-' || i as id, ${image} as image from range(${rows}) t(i) order by i`;
  await (await connection).run(`copy (${query}) to '${path}' (${format})`);
}

const SAMPLES_AT_ONCE = 1_000;

/** A ustar tar of samples, each one image of no bytes. */
export async function writeTar(path: string, samples: number): Promise<void> {
  const file = createWriteStream(path);
  for (let from = 0; from < samples; from += SAMPLES_AT_ONCE) {
    const count = Math.min(SAMPLES_AT_ONCE, samples - from);
    const headers = Array.from({ length: count }, (_, n) => header(`photos/2026/photo-${from + n}.jpg`));
    if (!file.write(Buffer.concat(headers))) await once(file, "drain");
  }
  file.end(Buffer.alloc(1_024));
  await once(file, "close");
}

function header(name: string): Buffer {
  const block = Buffer.alloc(512);
  block.write(name, 0, "latin1");
  block.write("0000644\0", 100, "latin1");
  block.write("00000000000\0", 124, "latin1");
  block.write(" ".repeat(8), 148, "latin1");
  block.write("0ustar\x0000", 156, "latin1");
  const sum = block.reduce((sum, byte) => sum + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}
