export * from "./connection.ts";
export * from "./deaths.ts";
export * from "./figures.ts";
export * from "./infer.ts";
export * from "./names.ts";
export * from "./presence.ts";
export * from "./progress.ts";
export * from "./reports.ts";
