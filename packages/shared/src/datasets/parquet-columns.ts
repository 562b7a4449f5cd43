/** What a Parquet file's schema says about the columns that a job wants. */
import { type FileMetaData, parquetSchema, type SchemaElement, type SchemaTree } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { columnProblem, type WantedOfRow } from "./row.ts";

export interface ParquetColumns {
  names: string[];
  /** Those of times that are not of UTC, but of wherever they were written. */
  localTimes: ReadonlySet<string>;
  /** Whether one is a list, struct or map: its pages can't be told apart by rows. */
  hasNested: boolean;
}

/** Of what is stored as bytes, and is none. */
const TEXT_TYPES = new Set(["UTF8", "ENUM", "JSON", "DECIMAL"]);
const TEXT_LOGICAL_TYPES = new Set(["STRING", "ENUM", "JSON", "DECIMAL", "UUID", "FLOAT16"]);

/** The columns that are there and wanted, or why the file can't be used. */
export function columnsOf(metadata: FileMetaData, wanted: WantedOfRow): ParquetColumns | string {
  const trees = parquetSchema(metadata).children.filter(({ element }) => wanted.names.includes(element.name));
  const all = parquetSchema(metadata).children.map(({ element }) => element.name);
  const problem = columnProblem(all, wanted) ?? trees.map((tree) => typeProblem(tree, wanted)).find(isText);
  if (problem) return problem;
  const names = trees.map(({ element }) => element.name);
  const localTimes = new Set(trees.filter(({ element }) => isLocalTime(element)).map(({ element }) => element.name));
  return storageProblem(metadata, names) ?? { names, localTimes, hasNested: trees.some((tree) => !isScalar(tree)) };
}

function typeProblem(tree: SchemaTree, { columns, column }: WantedOfRow): string | null {
  const { name } = tree.element;
  const isImageOrId = name === columns.image || name === columns.id;
  if (isImageOrId && !isScalar(tree)) return `the column \`${name}\` is a list, struct or map, not text`;
  if (name === column && !isScalar(tree) && !isListOfScalars(tree)) {
    return `the column \`${name}\` is a struct or map, neither text nor a list of texts`;
  }
  if (!leavesOf(tree).some(isBytes)) return null;
  const what = isImageOrId || name === column ? "not text" : "which rows can't keep";
  return `the column \`${name}\` holds bytes, ${what}`;
}

const isText = (problem: string | null) => problem !== null;
const isScalar = ({ children, element }: SchemaTree) => children.length === 0 && element.repetition_type !== "REPEATED";

/** Either a leaf that repeats, or a group called list, of a group that repeats, of a leaf; old writers leave one out. */
function isListOfScalars({ element, children }: SchemaTree): boolean {
  if (children.length === 0) return element.repetition_type === "REPEATED";
  const [inner] = children;
  if (element.converted_type !== "LIST" && element.logical_type?.type !== "LIST") return false;
  return inner!.children.length === 0 || (inner!.children.length === 1 && inner!.children[0]!.children.length === 0);
}

const leavesOf = (tree: SchemaTree): SchemaElement[] =>
  tree.children.length === 0 ? [tree.element] : tree.children.flatMap(leavesOf);

const isLocalTime = ({ logical_type: type }: SchemaElement) => type?.type === "TIMESTAMP" && !type.isAdjustedToUTC;

function isBytes({ type, converted_type, logical_type }: SchemaElement): boolean {
  if (type !== "BYTE_ARRAY" && type !== "FIXED_LEN_BYTE_ARRAY") return false;
  return !TEXT_TYPES.has(converted_type ?? "") && !TEXT_LOGICAL_TYPES.has(logical_type?.type ?? "");
}

function storageProblem({ row_groups }: FileMetaData, names: string[]): string | null {
  for (const { columns } of row_groups) {
    for (const { meta_data: chunk, crypto_metadata: isEncrypted } of columns) {
      // Without its metadata a column has no name either.
      if (!chunk) return "it is encrypted";
      const [name] = chunk.path_in_schema as [string];
      if (!names.includes(name)) continue;
      if (isEncrypted) return `the column \`${name}\` is encrypted`;
      const { codec } = chunk;
      const isKnown = codec === "UNCOMPRESSED" || Object.hasOwn(compressors, codec ?? "");
      if (!isKnown)
        return `the column \`${name}\` is compressed with ${codec ?? "an unknown codec"}, which can't be read`;
    }
  }
  return null;
}
