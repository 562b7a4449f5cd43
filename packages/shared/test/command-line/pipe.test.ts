/** Both binaries, and a third one that prints without end, into a real pipe that is closed at its other end. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Sandbox } from "../../../../test/support/processes.ts";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const CAPFLEET = path("../../../producer/bin/capfleet.mjs");
const WORKER = path("../../../worker/bin/capfleet-worker.mjs");

let sandbox: Sandbox;
beforeEach(async () => {
  sandbox = await Sandbox.create();
});
afterEach(() => sandbox.cleanUp());

/** What `reader` prints of it; then the command's own exit code, and all that it says on stderr. */
async function piped(command: string[], reader: string) {
  const script = `"$@" | ${reader}; echo "exit code \${PIPESTATUS[0]}"`;
  const args = ["-c", script, "bash", process.execPath, ...command];
  return promisify(execFile)("bash", args, { env: sandbox.env({ CAPFLEET_CACHE: sandbox.path("cache") }) });
}

test.each([
  ["what prints without end", [path("printer.ts")], "head -1", "a line\nexit code 141\n"],
  // The rest of a measurement comes seconds later, one line after the other.
  [
    "models bench",
    [WORKER, "models", "bench", "demo-caption"],
    "head -1",
    "demo-caption  int8  cpu  caption\nexit code 141\n",
  ],
  // `true` has ended long before it prints anything.
  ["doctor", [CAPFLEET, "doctor"], "true", "exit code 141\n"],
])("%s ends quietly when its reader does", async (_, command, reader, printed) => {
  expect(await piped(command, reader)).toEqual({ stdout: printed, stderr: "" });
});

test("a stdout that fails otherwise is an error with a code", async () => {
  const args = ["-c", '"$@" > /dev/full', "bash", process.execPath, path("printer.ts")];
  await expect(promisify(execFile)("bash", args)).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^INTERNAL: .*ENOSPC.*\n.*\n$/),
  });
});
