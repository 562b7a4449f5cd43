/** What the API answers. Types alone: nothing of the server is in the page. */

import type { ResultRow } from "@capfleet/shared/contract";
import type * as z from "zod";
import type { PlanView } from "../../api/routes/plan.ts";
import type { ScheduleView } from "../../api/routes/schedules.ts";
import type { rowPageSchema } from "../../api/row-pages.ts";
import type { fleetSchema, historySchema, JobView, modelSchema } from "../../api/schemas.ts";

export type Job = JobView;
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

export type Schedule = ScheduleView;
export type Run = Schedule["runs"][number];
export type Plan = PlanView;

export const FINAL: readonly Job["state"][] = ["finished", "failed", "cancelled"];
