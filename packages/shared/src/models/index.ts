export * from "./catalog.ts";
export * from "./checkpoint.ts";
export * from "./engine.ts";
