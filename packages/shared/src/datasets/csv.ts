/** CSV and TSV: a header line with the names of the columns, then a record a row. An empty field is an absent one. */
import type { Cursor } from "../contract/record.ts";
import { type CsvRecord, csvRecords } from "./csv-records.ts";
import type { Fields } from "./fields.ts";
import { columnProblem, type ManifestFile, type Row, type WantedOfRow } from "./row.ts";
import { brokenText, cursorAfter, readLines } from "./text-file.ts";

/** The wanted columns' names and places, and how many columns there are. */
interface Header {
  wanted: [name: string, at: number][];
  length: number;
}

export async function* readCsv(file: ManifestFile, wanted: WantedOfRow, cursor: Cursor | null): AsyncGenerator<Row[]> {
  const from = cursor?.source === "manifest" ? cursor : null;
  if (from && from.offset === file.object.size) return;
  let header = from && (await headerOf(file, wanted));
  for await (const records of csvRecords(readLines(file, from), delimiterOf(file))) {
    const rows: Row[] = [];
    for (const record of records) {
      if (header) rows.push(rowOf(record, header, file));
      else header = readHeader(record, wanted, file);
    }
    if (rows.length > 0) yield rows;
  }
}

const delimiterOf = ({ object: { key } }: ManifestFile) => (/\.tsv$/i.test(key) ? "\t" : ",");

function rowOf({ fields, first, last }: CsvRecord, header: Header, file: ManifestFile): Row {
  const row = { place: `line ${first.number}`, cursor: cursorAfter(file, last) };
  if (typeof fields === "string") return { ...row, fields };
  if (fields.length !== header.length) {
    return { ...row, fields: `it has ${fields.length} fields, and the header ${header.length}` };
  }
  const there = header.wanted.filter(([, at]) => fields[at] !== "");
  return { ...row, fields: Object.fromEntries(there.map(([name, at]) => [name, fields[at]!])) as Fields };
}

/** Of a file that is read from further on. */
async function headerOf(file: ManifestFile, wanted: WantedOfRow): Promise<Header | null> {
  for await (const [record] of csvRecords(readLines(file, null), delimiterOf(file))) {
    return readHeader(record!, wanted, file);
  }
  return null;
}

function readHeader({ fields, first }: CsvRecord, wanted: WantedOfRow, file: ManifestFile): Header {
  const refuse = (message: string) => brokenText(file, `line ${first.number}: the header: ${message}`);
  if (typeof fields === "string") throw refuse(fields);
  // One without a name is usual: the index that pandas writes.
  const names = fields.filter((name) => name.trim() !== "");
  if (names.length === 0) throw refuse("it has no names of columns");
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw refuse(`two columns are called \`${twice}\``);
  const problem = columnProblem(names, wanted);
  if (problem !== null) throw refuse(problem);
  const there = wanted.names.filter((name) => names.includes(name));
  return { wanted: there.map((name) => [name, fields.indexOf(name)]), length: fields.length };
}
