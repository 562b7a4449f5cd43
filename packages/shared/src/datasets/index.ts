export * from "./dataset.ts";
export * from "./image.ts";
export * from "./image-index.ts";
export * from "./incremental.ts";
export * from "./manifest.ts";
export * from "./prefix.ts";
export * from "./webdataset.ts";
