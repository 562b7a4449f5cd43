/** Real processes that write to one store at the same time (writer.ts). */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

export type Mode = "put-if-absent" | "increment" | "die-in-rename";

export interface Writer {
  /** Starts its work; it has been set up and waits. Resolves with its signal if it was killed. */
  finish(): Promise<string | null>;
  /** What it wrote out, line by line. */
  lines(): string[];
}

/** `config` is the value of CAPFLEET_STORES. */
export async function startWriter(mode: Mode, storeUri: string, config: string): Promise<Writer> {
  const script = fileURLToPath(new URL("writer.ts", import.meta.url));
  const child = spawn(process.execPath, [script, mode, storeUri], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, CAPFLEET_STORES: config },
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const ended = once(child, "close") as Promise<[number | null, string | null]>;
  await Promise.race([once(child.stdout, "data"), ended]);
  return {
    async finish() {
      child.stdin.end("go\n");
      const [code, signal] = await ended;
      if (code !== 0 && signal === null) throw new Error(`writer.ts ended with ${code}`);
      return signal;
    },
    lines: () => said.trim().split("\n").slice(1),
  };
}
