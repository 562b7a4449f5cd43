/** DuckDB, for a look at Parquet files with somebody else's eyes. */
import { DuckDBInstance, type Json } from "@duckdb/node-api";

/** The rows of a query, as JSON. */
export async function query(sql: string): Promise<Record<string, Json>[]> {
  const instance = await DuckDBInstance.create();
  const connection = await instance.connect();
  try {
    return (await connection.runAndReadAll(sql)).getRowObjectsJson();
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

/** Names and types of the columns of Parquet files, in their order. */
export async function describeParquet(glob: string): Promise<Record<string, string>> {
  const columns = await query(`DESCRIBE SELECT * FROM read_parquet('${glob}')`);
  return Object.fromEntries(columns.map(({ column_name, column_type }) => [column_name, column_type as string]));
}
