/** This machine's worker process: started, started again when it dies, stopped in good order. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CapfleetError, ERRORS, type ErrorCode } from "@capfleet/shared/contract";

const ENTRY = fileURLToPath(new URL("../../../worker/bin/capfleet-worker.mjs", import.meta.url));
/**
 * Workers in a row that may die without having labelled anything. How long they lived says nothing: a large model takes
 * minutes to compile and to load, and it is then that memory runs out.
 */
const MAX_FRUITLESS = 3;
/** The kernel's way of ending what takes too much memory, and that of V8 and of C++ where they get none. */
const OUT_OF_MEMORY = ["SIGKILL", "SIGABRT"];
const LAST_WORDS = 20;

export class LocalWorker {
  /** Rejects when it is of no use to start the worker again: with what the worker says is wrong, or WORKER_START_FAILED. */
  readonly failed: Promise<never>;
  readonly #arguments: string[];
  readonly #env: NodeJS.ProcessEnv;
  readonly #fail: (error: CapfleetError) => void;
  #child: ChildProcess | null = null;
  #stopping = false;
  #fruitless = 0;
  #lastWords: string[] = [];

  constructor(args: string[], env: NodeJS.ProcessEnv) {
    this.#arguments = args;
    this.#env = env;
    const { promise, reject } = Promise.withResolvers<never>();
    this.failed = promise;
    this.failed.catch(() => {});
    this.#fail = reject;
    this.#start();
  }

  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  /** Asks it to finish what it has in work, and waits until it has ended. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const child = this.#child;
    if (!child) return;
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGTERM");
    // It stops within its grace period by itself; one that does not has hung, and must not hold us up.
    const overdue = setTimeout(() => child.kill("SIGKILL"), (Number(this.#env.CAPFLEET_GRACE_SECONDS) + 10) * 1_000);
    await ended;
    clearTimeout(overdue);
  }

  /** Ends it at once; its shards are done again. */
  kill(): void {
    this.#stopping = true;
    this.#child?.kill("SIGKILL");
  }

  #start(): void {
    // A process group of its own, as Ctrl-C is for this process; the channel tells the worker when this process is gone.
    const child = spawn(process.execPath, [ENTRY, ...this.#arguments], {
      // Set here, or the worker would start itself again to set them (its bin says why), and lose its channel to this process.
      env: { MALLOC_ARENA_MAX: "2", ...this.#env, NODE_OPTIONS: nodeOptions(this.#env) },
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      detached: true,
    });
    this.#child = child;
    child.stderr!.setEncoding("utf8").on("data", (text: string) => this.#listen(text));
    // The worker's one message: it has labelled a row.
    let hasLabelled = false;
    child.once("message", () => {
      hasLabelled = true;
    });
    // A process that can't be started closes as well.
    child.once("error", ({ message }) => this.#lastWords.push(message));
    child.once("close", (code, signal) => {
      this.#child = null;
      // Where it says that something is wrong which no waiting mends, it would say so the next time.
      const said = code === null ? null : saidError(this.#lastWords);
      if (said && !said.retryable && said.code !== "INTERNAL") this.#fail(said);
      else this.#ended(hasLabelled, signal ?? `exit code ${code}`);
    });
  }

  #listen(text: string): void {
    if (this.#env.CAPFLEET_LOG) process.stderr.write(text);
    this.#lastWords = [...this.#lastWords, ...text.split("\n").filter((line) => line !== "")].slice(-LAST_WORDS);
  }

  #ended(hasLabelled: boolean, how: string): void {
    if (this.#stopping) return;
    this.#fruitless = hasLabelled ? 0 : this.#fruitless + 1;
    if (this.#fruitless < MAX_FRUITLESS) {
      setTimeout(() => this.#stopping || this.#start(), 500 * this.#fruitless);
      return;
    }
    const what = `the worker died ${MAX_FRUITLESS} times before it had labelled a row (the last time: ${how})`;
    const why = "memory may be too small for this model; a smaller --precision, or a smaller model, takes less";
    const words = this.#lastWords.map((line) => `\n  ${line}`).join("");
    const message = OUT_OF_MEMORY.includes(how) ? `${what}: ${why}` : what;
    this.#fail(new CapfleetError("WORKER_START_FAILED", `${message}${words}`));
  }
}

/** The error that the worker ended with, as its command line prints it: `CODE: message`, then what to do. */
function saidError(words: readonly string[]): CapfleetError | null {
  for (const line of words.toReversed()) {
    const [, code, message] = /^([A-Z_]+): (.*)$/.exec(line) ?? [];
    if (code !== undefined && code in ERRORS) return new CapfleetError(code as ErrorCode, message!);
  }
  return null;
}

const nodeOptions = (env: NodeJS.ProcessEnv) => `${env.NODE_OPTIONS ?? ""} --max-semi-space-size=4`.trim();
