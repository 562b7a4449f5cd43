/**
 * `capfleet` in the test's own process: parsed, run and answered by the same code, without a second of processor for a process
 * of its own.
 */
import { runCommand } from "@capfleet/shared/command-line";
import { commandLine } from "../../packages/producer/src/cli/program.ts";

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

let before: Promise<unknown> = Promise.resolve();

/** One after the other: environment and output are the process's. */
export function command(env: NodeJS.ProcessEnv, ...args: string[]): Promise<Ended> {
  const ended = before.then(() => run(env, args));
  before = ended.catch(() => {});
  return ended;
}

async function run(env: NodeJS.ProcessEnv, args: string[]): Promise<Ended> {
  const own = { ...process.env };
  const writes = { stdout: process.stdout.write, stderr: process.stderr.write };
  const said = { stdout: "", stderr: "" };
  become(env);
  for (const stream of ["stdout", "stderr"] as const) {
    process[stream].write = ((text: string | Uint8Array, ...rest: unknown[]) => {
      said[stream] += typeof text === "string" ? text : Buffer.from(text).toString("utf8");
      const written = rest.at(-1);
      if (typeof written === "function") written();
      return true;
    }) as typeof process.stdout.write;
  }
  process.exitCode = undefined;
  try {
    const code = await runCommand(commandLine(), args);
    return { code, ...said };
  } finally {
    process.exitCode = undefined;
    for (const stream of ["stdout", "stderr"] as const) process[stream].write = writes[stream];
    become(own);
  }
}

function become(env: NodeJS.ProcessEnv): void {
  for (const name of Object.keys(process.env)) if (!(name in env)) delete process.env[name];
  Object.assign(process.env, env);
}
