export * from "./dataset.ts";
export * from "./errors.ts";
export * from "./job.ts";
export * from "./layout.ts";
export * from "./record.ts";
export * from "./task.ts";
export * from "./work.ts";
