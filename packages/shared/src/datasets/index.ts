export * from "./dataset.ts";
export * from "./image.ts";
export * from "./manifest.ts";
export * from "./prefix.ts";
export * from "./webdataset.ts";
