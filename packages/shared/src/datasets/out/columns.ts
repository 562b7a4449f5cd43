/**
 * The columns of a job's rows, as a Parquet file has them. They follow from the job's spec alone, never from its rows:
 * all files of a job have the same ones, and can be read as one table.
 */
import type { ParquetWriter } from "hyparquet-writer";
import type { JobSpec } from "../../contract/job.ts";
import type { Pair, ResultRow } from "../../contract/record.ts";
import { type JobTaskSpec, textsOf } from "../../contract/task.ts";

/** What decides the columns. */
export type TableSpec = Pick<JobSpec, "task"> & { input: Pick<JobSpec["input"], "keep"> };

/** A line of the table: a labelled row, or in jobs that clean one of its texts. */
export interface Line {
  row: ResultRow;
  pair?: Pair;
}

/** As the writer knows it: its own version of hyparquet may be another than ours. */
type SchemaElement = ConstructorParameters<typeof ParquetWriter>[0]["schema"][number];

export interface Column {
  name: string;
  /** The column's part of the schema: itself, and what is in it. */
  schema: SchemaElement[];
  /** Numbers that nobody looks for by value, and that hardly come twice. */
  isVector: boolean;
  /** Null where the line has nothing there. */
  find(line: Line): unknown;
}

/** Whether the task's rows hold texts that are kept or dropped: then each is a line of its own. */
export const cleans = (task: JobTaskSpec): boolean => task.name === "capfilt" || task.name === "filter";

/** A labelled row's lines; with `onlyKept`, of a job that cleans, those of the texts that stay. */
export function linesOf(task: JobTaskSpec, row: ResultRow, onlyKept: boolean): Line[] {
  if (!cleans(task)) return [{ row }];
  const pairs = row.pairs ?? [];
  return pairs.filter(({ kept }) => kept || !onlyKept).map((pair) => ({ row, pair }));
}

export function columnsOf({ task, input }: TableSpec): Column[] {
  const own = [
    column("id", TEXT, ({ row }) => row.id),
    column("image", TEXT, ({ row }) => row.image),
    column("member", TEXT, ({ row }) => row.member),
    ...taskColumns(task),
    column("warnings", listOf(TEXT), ({ row }) => row.warnings),
  ];
  // Readers such as DuckDB don't tell `ID` from `id`.
  const taken = new Set(own.map(({ name }) => name));
  const kept = input.keep.map((field) => {
    let name = field;
    while (taken.has(name.toLowerCase())) name = `kept_${name}`;
    taken.add(name.toLowerCase());
    return column(name, TEXT, ({ row }) => keptText(row, field));
  });
  return [...own, ...kept];
}

function taskColumns(task: JobTaskSpec): Column[] {
  const source = textsOf(task);
  // A column's records have one text or several, each as it likes; what the job gives, all have.
  const given = source && "given" in source ? source.given.length : null;
  const [one, several] = [given === null || given === 1, given === null || given > 1];
  switch (task.name) {
    case "caption":
      return [
        column("caption", TEXT, ({ row }) => row.caption),
        column("score", DOUBLE, ({ row }) => row.score),
        ...some(
          task.captions > 1,
          column("captions", listOf(CAPTION), ({ row }) => row.captions),
        ),
      ];
    case "vqa":
      return [
        ...some(
          one,
          column("answer", TEXT, ({ row }) => row.answer),
        ),
        ...some(
          one,
          column("score", DOUBLE, ({ row }) => row.score),
        ),
        ...some(
          several,
          column("answers", listOf(ANSWER), ({ row }) => row.answers),
        ),
      ];
    case "itm":
    case "itc":
      return [
        ...some(
          one,
          column(task.name, DOUBLE, ({ row }) => row[task.name]),
        ),
        ...some(
          several,
          column("scores", listOf(DOUBLE), ({ row }) => row.scores),
        ),
      ];
    case "embed":
      // Of an image some models have one vector and some several.
      return [
        ...some(
          one,
          column("embedding", listOf(FLOAT), ({ row }) => row.embedding),
        ),
        ...some(
          several,
          column("embeddings", listOf(listOf(FLOAT)), ({ row }) => row.embeddings),
        ),
      ];
    case "capfilt":
    case "filter":
      return [
        column("text", TEXT, ({ pair }) => pair?.text),
        column("origin", TEXT, ({ pair }) => pair?.origin),
        column("itm", DOUBLE, ({ pair }) => pair?.itm),
        column("kept", BOOLEAN, ({ pair }) => pair?.kept),
      ];
  }
}

/** Text as it is, anything else as JSON. */
function keptText({ kept = {} }: ResultRow, field: string): string | null {
  const value = Object.hasOwn(kept, field) ? kept[field] : null;
  if (value === undefined || value === null) return null;
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A type as the elements that follow the one that has a name. */
type Type = (name: string) => SchemaElement[];

const leaf = (type: Omit<SchemaElement, "name">): Type => {
  return (name) => [{ name, repetition_type: "OPTIONAL", ...type }];
};
const TEXT = leaf({ type: "BYTE_ARRAY", converted_type: "UTF8" });
const DOUBLE = leaf({ type: "DOUBLE" });
const FLOAT = leaf({ type: "FLOAT" });
const BOOLEAN = leaf({ type: "BOOLEAN" });

const struct = (fields: Record<string, Type>): Type => {
  const children = Object.entries(fields).flatMap(([field, type]) => type(field));
  return (name) => [{ name, repetition_type: "OPTIONAL", num_children: Object.keys(fields).length }, ...children];
};
const CAPTION = struct({ text: TEXT, score: DOUBLE });
const ANSWER = struct({ question: TEXT, answer: TEXT, score: DOUBLE });

/** In three levels, as the format's specification asks. */
function listOf(element: Type): Type {
  return (name) => [
    { name, repetition_type: "OPTIONAL", num_children: 1, converted_type: "LIST", logical_type: { type: "LIST" } },
    { name: "list", repetition_type: "REPEATED", num_children: 1 },
    ...element("element"),
  ];
}

function column(name: string, type: Type, find: (line: Line) => unknown): Column {
  const schema = type(name);
  const isVector = schema.at(-1)!.type === "FLOAT";
  return { name, schema, isVector, find: (line) => find(line) ?? null };
}

const some = (wanted: boolean, column: Column): Column[] => (wanted ? [column] : []);
