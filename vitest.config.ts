import { defineConfig } from "vitest/config";

const common = { pool: "forks", testTimeout: 30_000, hookTimeout: 60_000 } as const;

export default defineConfig({
  test: {
    // A real S3 server for everything that talks to one; says SKIPPED, and why, where there can be none.
    globalSetup: ["test/support/cache.ts", "test/support/s3/global-setup.ts"],
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: { ...common, name: "unit", include: ["packages/*/test/**/*.test.ts", "test/parity/*.test.ts"] },
      },
      // Whole processes with clocks of their own: one file at a time, after the others.
      {
        extends: true,
        test: {
          ...common,
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          testTimeout: 180_000,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
