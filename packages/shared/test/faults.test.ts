import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readConfig } from "../src/config.ts";
import { Faults, parseFaults } from "../src/faults.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-faults-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("a fault names a point, an action, which time and what about", () => {
  expect(parseFaults("worker.commit.before=kill@3, worker.decode=abort:poison-7,")).toEqual([
    { point: "worker.commit.before", action: "kill", nth: 3, about: null, text: "worker.commit.before=kill@3" },
    { point: "worker.decode", action: "abort", nth: null, about: "poison-7", text: "worker.decode=abort:poison-7" },
  ]);
  expect(parseFaults("")).toEqual([]);
});

test.each([
  ["worker.nowhere=kill", "there is no fault point worker.nowhere"],
  ["toString=kill", "there is no fault point toString"],
  ["worker.decode=explode", "an action is one of kill, abort, stop, hang, error"],
  ["worker.decode", "must be"],
  ["worker.decode=kill@0", "must be"],
  ["worker.decode=kill:", "must be"],
])("%s is refused at the start", (text, why) => {
  expect(() => readConfig({ CAPFLEET_FAULTS: text })).toThrow(
    expect.objectContaining({ code: "INVALID_CONFIG", message: expect.stringContaining(why) }),
  );
});

test("a fault strikes at its point, its time and what it is about, and nowhere else", () => {
  const struck: string[] = [];
  const all = parseFaults("worker.infer=kill:7,worker.decode=stop@2,worker.commit.after=kill@2:0");
  const faults = new Faults(all, null, ({ text }) => struck.push(text));
  for (const about of ["6", "7", "7"]) faults.pass("worker.infer", about);
  expect(struck.splice(0)).toEqual(["worker.infer=kill:7", "worker.infer=kill:7"]);
  for (const about of ["a", "b", "c"]) faults.pass("worker.decode", about);
  expect(struck.splice(0)).toEqual(["worker.decode=stop@2"]);
  for (const about of [0, 1]) faults.pass("worker.commit.after", about);
  expect(struck).toEqual([]);
  faults.pass("worker.commit.after", 0);
  expect(struck).toEqual(["worker.commit.after=kill@2:0"]);
});

test("of several processes, one meets a fault that is to strike once", async () => {
  const struck: string[] = [];
  const processes = Array.from(
    { length: 2 },
    (_, n) => new Faults(parseFaults("worker.decode=kill:a/b"), join(folder, "once"), () => struck.push(String(n))),
  );
  for (const each of [...processes, ...processes]) each.pass("worker.decode", "a/b");
  expect(struck).toEqual(["0"]);
  expect(await readdir(join(folder, "once"))).toEqual([encodeURIComponent("worker.decode=kill:a/b")]);
});

/** How a process ends that passes a point on its main thread and then, where it lives on, on another one. */
async function end(faults: string): Promise<string | number> {
  const script = join(folder, "process.mjs");
  const module = new URL("../src/faults.ts", import.meta.url).href;
  await writeFile(
    script,
    `import { isMainThread, Worker } from "node:worker_threads";
    import { faultPoint } from ${JSON.stringify(module)};
    faultPoint(isMainThread ? "worker.decode" : "worker.infer");
    if (isMainThread) new Worker(new URL(import.meta.url));
    else process.exit(9);`,
  );
  const run = promisify(execFile)(process.execPath, [script], { env: { ...process.env, CAPFLEET_FAULTS: faults } });
  return run.then(
    () => 0,
    ({ signal, code, stderr }) => signal ?? (/STORE_UNAVAILABLE/.test(stderr) ? "STORE_UNAVAILABLE" : code),
  );
}

test.each([
  ["worker.decode=kill", "SIGKILL"],
  ["worker.decode=abort", "SIGABRT"],
  ["worker.decode=error", "STORE_UNAVAILABLE"],
  ["worker.infer=abort", "SIGABRT"],
  ["worker.infer=kill", "SIGKILL"],
])("%s ends a process by %s, before it gets any further", async (faults, how) => {
  expect(await end(faults)).toBe(how);
});
