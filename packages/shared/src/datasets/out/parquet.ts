/** Lines as a Parquet file: compressed with Snappy, which every reader has; row groups bounded in bytes. */
import { ByteWriter, ParquetWriter } from "hyparquet-writer";
import { CAPFLEET_VERSION } from "../../contract/job.ts";
import type { Column, Line } from "./columns.ts";

/** A row group is written when its values weigh so much: it is all that is in memory. */
const GROUP_BYTES = 8 * 1024 * 1024;
const GROUP_ROWS = 100_000;

/** The file's bytes. The same lines, in whatever chunks they come, give the same bytes. `groupBytes` is for tests. */
export async function* parquetFile(
  columns: readonly Column[],
  lines: AsyncIterable<Line[]> | Iterable<Line[]>,
  groupBytes: number = GROUP_BYTES,
): AsyncGenerator<Uint8Array> {
  const sink = new ByteWriter();
  const root = { name: "root", num_children: columns.length };
  const schema = [root, ...columns.flatMap((column) => column.schema)];
  const file = new ParquetWriter({ writer: sink, schema, createdBy: `capfleet version ${CAPFLEET_VERSION}` });
  let group = columns.map((): unknown[] => []);
  let bytes = 0;
  const flush = () => {
    const columnData = columns.map(({ name, isVector }, i) => {
      return { name, data: group[i]!, ...(isVector && { encoding: "PLAIN" as const, statistics: false }) };
    });
    file.write({ columnData, rowGroupSize: GROUP_ROWS });
    group = columns.map(() => []);
    bytes = 0;
    return taken(sink);
  };
  for await (const chunk of lines) {
    for (const line of chunk) {
      for (const [i, column] of columns.entries()) {
        const value = column.find(line);
        group[i]!.push(value);
        bytes += weigh(value);
      }
      if (bytes >= groupBytes || group[0]!.length === GROUP_ROWS) yield flush();
    }
  }
  if (group[0]!.length > 0) yield flush();
  file.finish();
  yield taken(sink);
}

/** What has been written since the last time; the sink's offset in the file goes on. */
function taken(sink: ByteWriter): Uint8Array {
  const bytes = sink.getBytes().slice();
  sink.index = 0;
  return bytes;
}

/** About how many bytes a value takes. */
function weigh(value: unknown): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null) return 8;
  if (Array.isArray(value) && typeof value[0] === "number") return 8 * value.length;
  return Object.values(value).reduce((sum: number, part) => sum + weigh(part), 8);
}
