import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

// Files share the two processes that run them: what they import is loaded twice and not eighty times.
const common = { pool: "forks", isolate: false, testTimeout: 60_000, hookTimeout: 60_000 } as const;

const PIXELS = "packages/worker/test/pixels/*.test.ts";

/** The longest of those that mostly wait. Begun last, they would end long after all others. */
const LONG = ["faults", "crash-producer", "trouble", "tasks", "crash-worker"].map((name) => `/e2e/${name}.test.ts`);

class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]) {
    const isLong = ({ moduleId }: TestSpecification) => LONG.some((name) => moduleId.endsWith(name));
    const sorted = await super.sort(files);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongFirst },
    // A real S3 server for everything that talks to one; says SKIPPED, and why, where there can be none.
    globalSetup: ["test/support/cache.ts", "test/support/s3/global-setup.ts"],
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          ...common,
          name: "unit",
          include: ["packages/*/test/**/*.test.ts", "test/parity/*.test.ts"],
          exclude: [PIXELS],
        },
      },
      // libvips is set up once a process, and these look at that: each file has one of its own.
      { extends: true, test: { ...common, name: "pixels", include: [PIXELS], isolate: true } },
      // Whole processes, which wait for one another more than they compute: after the others, and more at a time.
      {
        extends: true,
        test: {
          ...common,
          name: "e2e",
          include: ["test/e2e/**/*.test.ts", "test/infra/*.test.ts"],
          testTimeout: 180_000,
          maxWorkers: 3,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
