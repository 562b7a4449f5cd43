/** The worker's side of an isolated process: start it, ask it, hear of its death. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CapfleetError } from "@capfleet/shared/contract";
import type { IsolatedData, IsolatedReply, IsolatedRequest } from "./protocol.ts";

const ENTRY = fileURLToPath(new URL("./child.ts", import.meta.url));

/** How a process ended that should have answered. */
export interface Death {
  /** What it was doing. */
  stage: "starting" | "decoding" | "inferring";
  /** `died (SIGSEGV)`, `took longer than 300 s`. */
  how: string;
}

type Answer = Extract<IsolatedReply, { kind: "ready" | "broken" | "labelled" | "failed" }>;

export class IsolatedProcess {
  readonly #child: ChildProcess;
  readonly #died: Promise<string>;
  #stage: Death["stage"] = "starting";
  #answer: (reply: Answer) => void = () => {};
  isDead = false;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on("message", (reply: IsolatedReply) => {
      if (reply.kind === "inferring") this.#stage = "inferring";
      else this.#answer(reply);
    });
    const exited = new Promise<string>((resolve) => {
      child.once("error", ({ message }) => resolve(`could not be started (${message})`));
      child.once("exit", (code, signal) => resolve(`died (${signal ?? `exit code ${code}`})`));
    });
    // What it said before it died may arrive after the news of its death, and before the channel's end.
    const silent = new Promise<void>((resolve) => child.once("disconnect", () => resolve()));
    this.#died = Promise.all([exited, silent]).then(([how]) => {
      this.isDead = true;
      return how;
    });
  }

  /** Throws ENGINE_FAILED and the like where it says so, WORKER_LOST where it dies or takes longer than `ms`. */
  static async start(data: IsolatedData, ms: number): Promise<IsolatedProcess> {
    const stdio = ["ignore", "ignore", "inherit", "ipc"] as const;
    const child = fork(ENTRY, [JSON.stringify(data)], { serialization: "advanced", stdio: [...stdio] });
    const started = new IsolatedProcess(child);
    const reply = await started.#wait(ms, () => {});
    if ("how" in reply) {
      throw new CapfleetError("WORKER_LOST", `the process for records that may crash ${reply.how} as it started`);
    }
    if (reply.kind === "ready") return started;
    started.kill();
    throw reply.kind === "broken"
      ? new CapfleetError(reply.code, reply.message)
      : new CapfleetError("INTERNAL", `the isolated process began with ${reply.kind}`);
  }

  /** One request at a time. Throws the errors of labelling. */
  async ask(request: IsolatedRequest, ms: number) {
    this.#stage = "decoding";
    const reply = await this.#wait(ms, () => this.#child.send(request, () => {}));
    if ("how" in reply || reply.kind === "labelled") return reply;
    throw reply.kind === "failed"
      ? new CapfleetError(reply.code, reply.message)
      : new CapfleetError("INTERNAL", `the isolated process answered with ${reply.kind}`);
  }

  kill(): void {
    this.isDead = true;
    this.#child.kill("SIGKILL");
  }

  async #wait(ms: number, send: () => void): Promise<Answer | Death> {
    const late = Promise.withResolvers<string>();
    const timer = setTimeout(() => {
      late.resolve(`took longer than ${ms / 1_000} s`);
      this.kill();
    }, ms);
    const answered = new Promise<Answer>((resolve) => {
      this.#answer = resolve;
    });
    send();
    const death = Promise.race([late.promise, this.#died]).then((how): Death => ({ stage: this.#stage, how }));
    return Promise.race([answered, death]).finally(() => clearTimeout(timer));
  }
}
