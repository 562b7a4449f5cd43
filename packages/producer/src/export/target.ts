/**
 * Where an export goes:
 *
 *     export.json                   what is exported, and how; written first: whoever writes it owns the prefix
 *     part-000000.parquet           a part (`part-000000.jsonl`, `000000.tar`); none where it would be empty
 *     errors/part-000000.jsonl      the part's rows that have no label; none where all have one
 *     stats/part-000000.json        the part's counts; written after all else of it: the part is done
 *     _SUCCESS                      the counts of all; written last
 *
 * Each object is put whole. An exporter that dies costs the part that it was at.
 */
import { CAPFLEET_VERSION, CapfleetError, type Format, SCHEMA_VERSION } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import * as z from "zod";
import type { ExportSource } from "./source.ts";

export interface ExportOptions {
  format: Format;
  /** capfilt, filter: only the texts that stay, each a line or sample of its own. */
  onlyKept: boolean;
}

const countsSchema = z.object({
  /** Rows of the source, those in `errors` too. */
  rows: z.number().int(),
  failed: z.number().int(),
  /** Lines of the table, or samples. */
  written: z.number().int(),
  bytes: z.number().int(),
});
export type Counts = z.infer<typeof countsSchema>;
const totalsSchema = countsSchema.extend({ parts: z.number().int() });
export type Totals = z.infer<typeof totalsSchema>;

const MANIFEST = "export.json";
const SUCCESS = "_SUCCESS";
const six = (n: number) => String(n).padStart(6, "0");

export class Target {
  readonly store: Store;
  readonly #format: Format;

  private constructor(store: Store, format: Format) {
    this.store = store;
    this.#format = format;
  }

  /** Takes an empty prefix, or one that holds this very export. Throws OUTPUT_IN_USE, and the store's errors. */
  static async claim(store: Store, source: ExportSource, options: ExportOptions, rowsPerPart: number): Promise<Target> {
    const meaning = { ...source.identity, ...options, rowsPerPart };
    const manifest = { schema: SCHEMA_VERSION, capfleet: CAPFLEET_VERSION, export: meaning };
    const target = new Target(store, options.format);
    if (!(await store.stat(MANIFEST))) {
      for await (const { key } of store.list()) {
        throw new CapfleetError("OUTPUT_IN_USE", `${store.uri} is not empty: it holds ${key}`);
      }
      const put = await store.putIfAbsent(MANIFEST, `${JSON.stringify(manifest, null, 2)}\n`);
      if (put.outcome === "written") return target;
    }
    const there = parse((await store.read(MANIFEST)).bytes) as { export?: unknown } | null;
    if (JSON.stringify(there?.export) === JSON.stringify(meaning)) return target;
    throw new CapfleetError("OUTPUT_IN_USE", `${store.uri} already holds another export`);
  }

  part(n: number): string {
    if (this.#format === "webdataset") return `${six(n)}.tar`;
    return `part-${six(n)}.${this.#format}`;
  }

  errors = (n: number): string => `errors/part-${six(n)}.jsonl`;

  /** Null for a part that is not done. */
  counts(n: number): Promise<Counts | null> {
    return this.#read(statsOf(n), countsSchema);
  }

  async putCounts(n: number, counts: Counts): Promise<void> {
    await this.store.put(statsOf(n), JSON.stringify(counts));
  }

  /** Null until the export is whole. */
  totals(): Promise<Totals | null> {
    return this.#read(SUCCESS, totalsSchema);
  }

  async putTotals(totals: Totals): Promise<void> {
    await this.store.put(SUCCESS, `${JSON.stringify(totals)}\n`);
  }

  async #read<T>(key: string, schema: z.ZodType<T>): Promise<T | null> {
    if (!(await this.store.stat(key))) return null;
    const parsed = schema.safeParse(parse((await this.store.read(key)).bytes));
    if (parsed.success) return parsed.data;
    throw new CapfleetError("OUTPUT_IN_USE", `${this.store.uriOf(key)} was not written by this export`);
  }
}

const statsOf = (n: number) => `stats/part-${six(n)}.json`;

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}
