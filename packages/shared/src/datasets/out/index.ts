export * from "./columns.ts";
export * from "./image-type.ts";
export * from "./parquet.ts";
export * from "./samples.ts";
export * from "./tar.ts";
