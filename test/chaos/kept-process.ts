/** A process that is started again whenever it ends, as Kubernetes or systemd would. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

const AGAIN_MS = 500;

interface Armed {
  point: string;
  struck: () => void;
}

export class KeptProcess {
  readonly name: string;
  /** Ends that nobody has asked for: how, and its last words. */
  readonly crashes: string[] = [];
  readonly #command: string[];
  readonly #env: NodeJS.ProcessEnv;
  readonly #log: string;
  readonly #once: string;
  readonly #armed: Armed[] = [];
  readonly #watch: NodeJS.Timeout;
  #child: ChildProcess | null = null;
  #isAsked = false;
  #isOver = false;

  /** `folder`: for its log, and for the marks of the fault points that have struck. */
  constructor(name: string, command: string[], env: NodeJS.ProcessEnv, folder: string) {
    this.name = name;
    this.#command = command;
    this.#log = join(folder, `${name}.log`);
    this.#once = join(folder, `${name}.points`);
    this.#env = { ...env, CAPFLEET_FAULTS_ONCE: this.#once };
    this.#watch = setInterval(() => this.#lookAtMarks(), 100);
    this.#start();
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Does nothing while it is not running. */
  signal(signal: NodeJS.Signals): void {
    this.#isAsked ||= signal !== "SIGSTOP" && signal !== "SIGCONT";
    this.#child?.kill(signal);
  }

  /** Starts it again, with a fault point in `CAPFLEET_FAULTS`'s words. `struck` is called once that has struck. */
  arm(point: string, struck: () => void): void {
    let own = point;
    // Two that are the same would be one to the process.
    for (let nth = 1; this.#armed.some((armed) => armed.point === own); nth++) own = point.replace(/@.*/, `@${nth}`);
    this.#armed.push({ point: own, struck });
    this.signal("SIGTERM");
  }

  /** Fault points that have not struck. */
  get unreached(): string[] {
    return this.#armed.map(({ point }) => point);
  }

  /** In good order; gives its exit code, or the signal that ended it. */
  async end(): Promise<number | NodeJS.Signals | null> {
    this.#isOver = true;
    clearInterval(this.#watch);
    const child = this.#child;
    if (!child) return 0;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const [code, signal] = await ended;
    return code ?? signal;
  }

  async kill(): Promise<void> {
    this.#isOver = true;
    clearInterval(this.#watch);
    if (!this.#child) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }

  #start(): void {
    if (this.#isOver) return;
    this.#isAsked = false;
    const env = { ...this.#env, CAPFLEET_FAULTS: this.#armed.map(({ point }) => point).join(",") };
    const log = openSync(this.#log, "a");
    const [program, ...args] = this.#command as [string, ...string[]];
    const child = spawn(program, args, { env, stdio: ["ignore", "ignore", log] });
    closeSync(log);
    this.#child = child;
    child.once("exit", (code, signal) => {
      this.#child = null;
      // A fault point leaves its mark before it strikes.
      this.#lookAtMarks();
      if (!this.#isAsked && !this.#isOver && !this.#wasRefused(code))
        this.crashes.push(`${this.name}: ${signal ?? `exit code ${code}`}: ${this.#lastWords()}`);
      setTimeout(() => this.#start(), AGAIN_MS);
    });
  }

  /** It could not start without its Redis or store, and has said so. */
  #wasRefused(code: number | null): boolean {
    return code !== null && code !== 0 && /^(REDIS|STORE)_[A-Z_]+: /.test(this.#lastWords());
  }

  #lastWords(): string {
    const lines = readFileSync(this.#log, "utf8").trimEnd().split("\n");
    // An error's code is in its first line, and what to do about it in the next.
    return lines.slice(-3).find((line) => /^[A-Z_]+: /.test(line)) ?? lines.at(-1)!;
  }

  #lookAtMarks(): void {
    const struck = this.#armed.filter(({ point }) => existsSync(this.#markOf(point)));
    for (const armed of struck) {
      this.#armed.splice(this.#armed.indexOf(armed), 1);
      rmSync(this.#markOf(armed.point));
      if (!armed.point.includes("=stop")) this.#isAsked = true;
      armed.struck();
    }
  }

  #markOf(point: string): string {
    return join(this.#once, encodeURIComponent(point));
  }
}
