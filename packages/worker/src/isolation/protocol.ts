/** What a worker and its isolated process say to each other, over Node's channel between processes. */
import type { ErrorCode, JobSpec, ResultRow } from "@capfleet/shared/contract";
import type { ThreadData } from "../engine/thread.ts";
import type { Limits } from "../pipeline/labeler.ts";

/** The process's one argument, as JSON. */
export interface IsolatedData {
  engine: ThreadData;
  limits: Limits;
}

export interface IsolatedRequest {
  record: { id: string; texts?: string[] | undefined };
  spec: Pick<JobSpec, "engines" | "task">;
  /** The image's file; null for a task that looks at none. */
  image: Uint8Array | null;
}

/** Each request is answered before the next is sent. */
export type IsolatedReply =
  | { kind: "ready" }
  | { kind: "broken"; code: ErrorCode; message: string }
  /** The image is decoded: from here on it is the engine that works on the record. */
  | { kind: "inferring" }
  | { kind: "labelled"; fields: Partial<ResultRow> }
  | { kind: "failed"; code: ErrorCode; message: string };
