/** `npm test`: format and lint, types, generated docs, then every suite. Stops at the first that fails. */
import { spawnSync } from "node:child_process";

const steps: [name: string, command: string, ...args: string[]][] = [
  ["format and lint", "biome", "check", "--error-on-warnings", "."],
  ["types", "tsc", "--noEmit"],
  ["the console's types", "tsc", "--noEmit", "-p", "packages/producer/src/console/web"],
  ["generated docs are fresh", "node", "scripts/docs.ts", "--check"],
  ["suites", "vitest", "run"],
];

for (const [name, command, ...args] of steps) {
  console.log(`\n== ${name}: ${command} ${args.join(" ")}`);
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) {
    console.error(`\nfailed: ${name}`);
    process.exit(status ?? 1);
  }
}
console.log("\nall checks passed");
