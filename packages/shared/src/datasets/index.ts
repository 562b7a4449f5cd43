export * from "./budget.ts";
export * from "./dataset.ts";
export * from "./fetch.ts";
export * from "./image.ts";
export { splitLines } from "./lines.ts";
export * from "./manifest.ts";
export * from "./out/index.ts";
export * from "./prefix.ts";
export * from "./webdataset.ts";
