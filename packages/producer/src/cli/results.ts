/** `capfleet results`: the rows of a job or a dataset, printed or written as a dataset. */
import { once } from "node:events";
import { CapfleetError, datasetLayout, type Format, type JobSpec, layout } from "@capfleet/shared/contract";
import { readIndex } from "@capfleet/shared/datasets";
import { asFolder, contains, normalizeUri } from "@capfleet/shared/storage";
import { datasetSource } from "../export/dataset-source.ts";
import { exportDataset } from "../export/export.ts";
import { jobSource } from "../export/job-source.ts";
import type { ExportSource } from "../export/source.ts";
import type { Totals } from "../export/target.ts";
import { viewRows } from "../incremental/view.ts";
import { readJobFile } from "../jobs/create.ts";
import { checkSelection, resultShards, type Selection, selected } from "../jobs/results.ts";
import { type Context, findJob } from "./context.ts";
import { type FoundDataset, findDataset } from "./dataset.ts";
import { count, megabytes, plural } from "./format.ts";
import { ProgressDisplay } from "./progress.ts";

export interface ResultsOptions extends Selection {
  /** Write them, in place of printing. */
  to?: Format;
}

/** Throws INVALID_OPTION, JOB_STATE, OUTPUT_IN_USE, OUTPUT_INSIDE_INPUT, and the stores' errors. */
export async function results(job: string, uri: string | undefined, options: ResultsOptions, context: Context) {
  const { errors, kept, to } = options;
  const dataset = await findDataset(job, context);
  if (dataset && !dataset.dataset.current) {
    process.stderr.write(`no run of ${dataset.root.uri} has finished yet\n`);
    return;
  }
  const rows = dataset ? await ofDataset(dataset, context) : await ofJob(job, context);
  const { name, spec } = rows;
  checkSelection(name, spec.task, options);
  if (to === undefined) {
    if (uri !== undefined) throw new CapfleetError("INVALID_OPTION", `${uri}: say as what, with --to`);
    return print(rows, options);
  }
  if (uri === undefined)
    throw new CapfleetError("INVALID_OPTION", `--to ${to}: say where to, an empty prefix or folder`);
  if (errors)
    throw new CapfleetError("INVALID_OPTION", "--errors is for printing; --to writes rows with errors apart by itself");
  await exportRows(rows, asFolder(normalizeUri(uri)), to, kept, context);
}

/** The rows of a job, or of a dataset of incremental runs. */
interface Rows {
  name: string;
  spec: JobSpec;
  /** As JSON, some at a time, in order. */
  lines(): AsyncIterable<string[]>;
  source(): Promise<ExportSource>;
}

async function ofJob(job: string, context: Context): Promise<Rows> {
  const found = await findJob(job, context);
  const { store, file } = found;
  return {
    name: file.id,
    spec: file.spec,
    async *lines() {
      for await (const { lines } of resultShards(store)) yield lines;
    },
    source: () => jobSource(found),
  };
}

/** Of a dataset that has a run that finished; its job says what the rows of all runs are. */
async function ofDataset({ root, dataset }: FoundDataset, { stores }: Context): Promise<Rows> {
  const current = dataset.current!;
  const out = root.uriOf(datasetLayout.run(current.run));
  const file = await readJobFile(stores.at(out));
  if (!file) throw new CapfleetError("OBJECT_NOT_FOUND", `${out}${layout.job} is gone`);
  return {
    name: root.uri,
    spec: file.spec,
    async *lines() {
      const rows = viewRows(root, readIndex(root, current.index), stores);
      for await (const chunk of rows) yield chunk.map(({ line }) => line);
    },
    source: async () => datasetSource(root, current, file.spec, stores),
  };
}

/** As JSONL on stdout. */
async function print({ spec, lines }: Rows, selection: Selection): Promise<void> {
  for await (const all of lines()) {
    const text = selected(spec.task, all, selection)
      .map((line) => `${line}\n`)
      .join("");
    if (!process.stdout.write(text)) await once(process.stdout, "drain");
  }
}

async function exportRows({ spec, ...rows }: Rows, out: string, format: Format, onlyKept: boolean, context: Context) {
  const input = spec.input.uri;
  if (input.endsWith("/") && contains(input, out)) {
    throw new CapfleetError("OUTPUT_INSIDE_INPUT", `${out} lies inside the input ${input}`);
  }
  const source = await rows.source();
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
