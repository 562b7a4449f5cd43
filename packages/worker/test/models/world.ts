/** A cache of its own, the command line as real processes, and a fake hub. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BUNDLED_MODELS, readConfig } from "@capfleet/shared/config";
import { checksumOf } from "@capfleet/shared/models";
import { FakeHub } from "../../../../test/support/hub.ts";

const WORKER = fileURLToPath(new URL("../../bin/capfleet-worker.mjs", import.meta.url));

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export class World {
  readonly folder: string;
  readonly hub: FakeHub;
  readonly notes: string[] = [];
  readonly note = (text: string) => this.notes.push(text);
  readonly #children: ChildProcess[] = [];

  private constructor(folder: string, hub: FakeHub) {
    this.folder = folder;
    this.hub = hub;
  }

  static async create(): Promise<World> {
    return new World(await mkdtemp(join(tmpdir(), "capfleet-worker-models-")), await FakeHub.start());
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** `cache`: the name of one of several caches, as if on other machines. */
  config(cache = "cache", env: Record<string, string> = {}) {
    return readConfig({ CAPFLEET_CACHE: this.path(cache), CAPFLEET_STATE: this.path("state"), ...env });
  }

  /** `capfleet-worker …` */
  start(args: string[], env: Record<string, string> = {}): { child: ChildProcess; ended: Promise<Ended> } {
    const more = { CAPFLEET_CACHE: this.path("cache"), CAPFLEET_STATE: this.path("state"), HF_ENDPOINT: this.hub.url };
    const child = spawn(process.execPath, [WORKER, ...args], {
      env: { ...process.env, ...more, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#children.push(child);
    const said = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"] as const) {
      child[stream]!.setEncoding("utf8").on("data", (text: string) => {
        said[stream] += text;
      });
    }
    return { child, ended: once(child, "close").then(([code]) => ({ code: code as number | null, ...said })) };
  }

  models(args: string[], env: Record<string, string> = {}): Promise<Ended> {
    return this.start(["models", ...args], env).ended;
  }

  async end(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await this.hub.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** The bundled checkpoint as a hub model's files. */
export async function bundledFiles(name: string): Promise<Record<string, Buffer>> {
  const folder = join(BUNDLED_MODELS, name);
  const names = await readdir(folder);
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name))])));
}

/** The sums of a folder's files, by name. */
export async function sumsIn(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder)).sort();
  const sum = async (name: string) => [name, await checksumOf(join(folder, name), "sha256")];
  return Object.fromEntries(await Promise.all(names.map(sum)));
}
