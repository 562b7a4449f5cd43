export * from "./dataset.ts";
export { kindOfPrefix } from "./files.ts";
export * from "./image.ts";
export * from "./manifest.ts";
export * from "./prefix.ts";
export * from "./webdataset.ts";
