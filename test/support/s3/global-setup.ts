/**
 * Vitest's global setup: one S3 server for all test files, which read it with `inject("s3")`. Where there is none it says
 * SKIPPED and why; under CI that is a failure.
 */
import type { TestProject } from "vitest/node";
import { type RunningS3, type S3Server, startS3 } from "./ceph.ts";

declare module "vitest" {
  interface ProvidedContext {
    s3: S3Server | { skipped: string };
    s3Other: RunningS3["other"];
    s3Third: RunningS3["third"];
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const s3 = await startS3();
  if ("skipped" in s3) {
    if (process.env.CI) throw new Error(`the S3 tests can't run: ${s3.skipped}`);
    console.error(`SKIPPED the S3 tests: ${s3.skipped}`);
    project.provide("s3", s3);
    project.provide("s3Other", null);
    project.provide("s3Third", null);
    return async () => {};
  }
  const { stop, other, third, ...server } = s3;
  project.provide("s3", server);
  project.provide("s3Other", other);
  project.provide("s3Third", third);
  return stop;
}
