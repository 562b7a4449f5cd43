/** `capfleet results`: a job's rows, printed or written as a dataset. */
import { once } from "node:events";
import { CapfleetError, type Format, layout, type ResultRow } from "@capfleet/shared/contract";
import { cleans, linesOf } from "@capfleet/shared/datasets";
import { asFolder, contains, normalizeUri } from "@capfleet/shared/storage";
import { exportDataset, keptLine } from "../export/export.ts";
import { jobSource } from "../export/job-source.ts";
import type { Totals } from "../export/target.ts";
import { type Context, type FoundJob, findJob } from "./context.ts";
import { count, megabytes, plural } from "./format.ts";
import { ProgressDisplay } from "./progress.ts";

export interface ResultsOptions {
  /** Only rows that failed. */
  errors: boolean;
  /** The texts that a job that cleans has kept: a line each. */
  kept: boolean;
  /** Write them, in place of printing. */
  to?: Format;
}

/** Throws INVALID_OPTION, JOB_STATE, OUTPUT_IN_USE, OUTPUT_INSIDE_INPUT, and the stores' errors. */
export async function results(job: string, uri: string | undefined, options: ResultsOptions, context: Context) {
  const { errors, kept, to } = options;
  const found = await findJob(job, context);
  const { id, spec } = found.file;
  if (kept && !cleans(spec.task))
    throw new CapfleetError("INVALID_OPTION", `--kept: ${id} is ${spec.task.name}, which keeps all`);
  if (kept && errors) throw new CapfleetError("INVALID_OPTION", "--kept and --errors: give one of them");
  if (to === undefined) {
    if (uri !== undefined) throw new CapfleetError("INVALID_OPTION", `${uri}: say as what, with --to`);
    return printRows(found, options);
  }
  if (uri === undefined)
    throw new CapfleetError("INVALID_OPTION", `--to ${to}: say where to, an empty prefix or folder`);
  if (errors)
    throw new CapfleetError("INVALID_OPTION", "--errors is for printing; --to writes rows with errors apart by itself");
  await exportJob(found, asFolder(normalizeUri(uri)), to, kept, context);
}

/** Rows in input order, as JSONL on stdout. */
async function printRows({ store, file }: FoundJob, { errors, kept }: ResultsOptions): Promise<void> {
  const keptLines = (line: string) => linesOf(file.spec.task, JSON.parse(line) as ResultRow, true).map(keptText);
  for await (const { key } of store.list({ prefix: layout.results })) {
    if (layout.numberOf(key) === null) continue;
    const text = (await store.read(key)).bytes.toString("utf8");
    const all = () => text.split("\n").filter((line) => line !== "");
    const some = kept ? all().flatMap(keptLines) : errors ? all().filter(isErrorRow) : null;
    const lines = some === null ? text : some.map((line) => `${line}\n`).join("");
    if (!process.stdout.write(lines)) await once(process.stdout, "drain");
  }
}

const isErrorRow = (line: string) => (JSON.parse(line) as ResultRow).error !== undefined;
const keptText = (line: Parameters<typeof keptLine>[0]) => JSON.stringify(keptLine(line));

async function exportJob(found: FoundJob, out: string, format: Format, onlyKept: boolean, context: Context) {
  const input = found.file.spec.input.uri;
  if (input.endsWith("/") && contains(input, out)) {
    throw new CapfleetError("OUTPUT_INSIDE_INPUT", `${out} lies inside the job's input ${input}`);
  }
  const source = await jobSource(found);
  const display = new ProgressDisplay();
  const { stores, config } = context;
  const progress = (rows: number) => {
    const percent = source.rows === 0 ? 100 : Math.floor((100 * rows) / source.rows);
    display.line(`exporting  ${count(rows)}/${count(source.rows)} (${percent}%)`);
  };
  const { maxImageBytes } = config;
  const request = { source, format, onlyKept, store: stores.at(out), stores, maxImageBytes, progress };
  const totals = await exportDataset(request).finally(() => display.clear());
  process.stdout.write(`${totalsText(totals, format, out)}\n`);
}

function totalsText({ parts, rows, failed, written, bytes }: Totals, format: Format, out: string): string {
  const what = plural(written, format === "webdataset" ? "sample" : "row");
  const lines = [`exported: ${what} of ${plural(rows, "record")}, ${plural(parts, "part")}, ${megabytes(bytes)}`];
  if (failed > 0) lines.push(`errors   ${plural(failed, "row")} in ${out}errors/`);
  return [...lines, `dataset  ${out}`].join("\n");
}
