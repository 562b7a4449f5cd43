/** A fake hub, a cache and processes that fetch from the one into the other, for one test. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FakeHub } from "../../../../test/support/hub.ts";
import { readConfig } from "../../src/config.ts";
import { HubModel, type HubSettings, readHubSettings } from "../../src/models/hub.ts";
import { fetchCheckpoint, type Remote } from "../../src/models/index.ts";

export const BIG = 3_000_000;
export const REPO = "somebody/blip-small";

const config = { architectures: ["BlipForConditionalGeneration"], text_config: { max_position_embeddings: 64 } };

/** Configs of checkpoints that can't be used here, and what is said of each. */
export const UNSUPPORTED: [what: string, config: object][] = [
  ['the language model "t5"', { architectures: ["Blip2ForConditionalGeneration"], text_config: { model_type: "t5" } }],
  ["LlavaForConditionalGeneration", { architectures: ["LlavaForConditionalGeneration"] }],
];

/** A repository as there are many: what capfleet wants, and what it does not. */
export const repository = (): Record<string, Uint8Array> => ({
  ".gitattributes": Buffer.from("*.bin filter=lfs"),
  "README.md": randomBytes(5_000),
  "config.json": Buffer.from(JSON.stringify(config)),
  "flax_model.msgpack": randomBytes(4_000),
  "model.safetensors": randomBytes(BIG),
  "onnx/model.onnx": randomBytes(2_000),
  "preprocessor_config.json": Buffer.from("{}"),
  "pytorch_model.bin": randomBytes(4_000),
  "special_tokens_map.json": Buffer.from("{}"),
  "tf_model.h5": randomBytes(4_000),
  "tokenizer_config.json": Buffer.from("{}"),
  "vocab.txt": Buffer.from("a\nb\n"),
});
export const WANTED = [
  "config.json",
  "model.safetensors",
  "preprocessor_config.json",
  "special_tokens_map.json",
  "tokenizer_config.json",
  "vocab.txt",
];

export class World {
  readonly hub: FakeHub;
  readonly folder: string;
  readonly notes: string[] = [];
  readonly #children: ChildProcess[] = [];

  private constructor(hub: FakeHub, folder: string) {
    this.hub = hub;
    this.folder = folder;
  }

  static async create(): Promise<World> {
    return new World(await FakeHub.start(), await mkdtemp(join(tmpdir(), "capfleet-models-")));
  }

  get cache(): string {
    return join(this.folder, "cache");
  }

  get config() {
    return readConfig({ CAPFLEET_CACHE: this.cache, CAPFLEET_STATE: join(this.folder, "state") });
  }

  settings(env: Record<string, string> = {}): HubSettings {
    return readHubSettings({ HF_ENDPOINT: this.hub.url, ...env });
  }

  /** The model's folder, fetched in this process. */
  fetch(revision: string | null = null, settings = this.settings()): Promise<string> {
    return this.fetchFrom(new HubModel(REPO, revision, settings));
  }

  fetchFrom(remote: Remote): Promise<string> {
    return fetchCheckpoint(remote, REPO, this.cache, { note: (text) => this.notes.push(text) });
  }

  /** A process that fetches `given`. */
  start(given: string, env: Record<string, string> = {}): Fetcher {
    const script = fileURLToPath(new URL("fetcher.ts", import.meta.url));
    const child = spawn(process.execPath, [script, given], {
      env: { ...process.env, CAPFLEET_CACHE: this.cache, HF_ENDPOINT: this.hub.url, ...env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#children.push(child);
    return new Fetcher(child);
  }

  /** Names in the cache, whatever they are. */
  async cached(): Promise<string[]> {
    return existsSync(join(this.cache, "checkpoints")) ? readdir(join(this.cache, "checkpoints")) : [];
  }

  async end(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await this.hub.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}

export class Fetcher {
  readonly lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#ended = once(child, "close");
    let rest = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      this.lines.push(...lines);
    });
  }

  /** The last line: `folder …` or `error …`. */
  async end(): Promise<string> {
    await this.#ended;
    return this.lines.at(-1)!;
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  get received(): number {
    return Number(this.lines.findLast((line) => line.startsWith("received "))?.split(" ")[1] ?? 0);
  }
}

/** The sums of a folder's files, but for capfleet's own, by name. (Megabytes themselves make no readable difference.) */
export async function contents(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder)).filter((name) => name !== "capfleet-source.json").sort();
  const files = await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name))] as const));
  return pick(Object.fromEntries(files), names);
}

export const pick = (files: Record<string, Uint8Array>, names: string[]) =>
  Object.fromEntries(names.map((name) => [name, createHash("sha256").update(files[name]!).digest("hex")]));
