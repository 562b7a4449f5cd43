/** What the API answers. Types alone: nothing of the server is in the page. */

import type { ResultRow } from "@capfleet/shared/contract";
import type * as z from "zod";
import type { rowPageSchema } from "../../api/row-pages.ts";
import type { fleetSchema, historySchema, JobView, modelSchema } from "../../api/schemas.ts";

export interface Cost {
  worker_seconds: number;
  spent: number | null;
  per_1000: number | null;
  estimated: number | null;
}
export type Job = JobView & { cost?: Cost | null };
export interface JobPage {
  jobs: Job[];
  next_cursor: string | null;
}
export type Model = z.infer<typeof modelSchema>;
export type Fleet = z.infer<typeof fleetSchema>;
export type History = z.infer<typeof historySchema>;
export type Row = ResultRow;
export type RowPage = Omit<z.infer<typeof rowPageSchema>, "rows"> & { rows: Row[] };
export type Answer = Omit<Row, "id" | "image">;
export type JobTask = Job["task"];

export interface Run {
  due_at: string;
  started_at?: string;
  job_id: string | null;
  outcome: null | "finished" | "failed" | "cancelled" | "nothing_new" | "error";
  rows: number | null;
  failed: number | null;
  error: { code: string; message: string } | null;
}
export interface Schedule {
  name: string;
  cron: string;
  time_zone: string;
  state: "active" | "paused";
  task: JobTask;
  input: string;
  output: string;
  incremental: boolean;
  next_due_at: string | null;
  runs: Run[];
}
export interface Plan {
  images: number;
  workers: number;
  rate_per_worker: number;
  seconds: number;
  worker_hours: number;
  price_per_hour: number | null;
  cost: number | null;
  per_1000: number | null;
  assumed: string[];
}

export const FINAL: readonly Job["state"][] = ["finished", "failed", "cancelled"];
