/**
 * Fault points: named lines (fault-points.ts) at which a test makes a real process die, hang or meet an error. Off by
 * default, and then one costs a comparison.
 *
 *   CAPFLEET_FAULTS="worker.commit.before=kill@3,worker.decode=abort:poison-7"
 *
 * A fault is `<point>=<action>[@<n>][:<about>]`, with commas between several. `about` is what the point is about: a record's
 * id, a shard's number or a job's id, as fault-points.ts says; without it, any. `n`: only the n-th time that this process
 * passes so; without it, each time. Actions:
 *
 *   kill    the process ends at once, by SIGKILL
 *   abort   it ends as native code ends it that crashes, by SIGABRT
 *   stop    it stands still, by SIGSTOP, as one that is swapped out
 *   hang    the thread that passes never goes on, as in native code that hangs
 *   error   a shard error is thrown (STORE_UNAVAILABLE)
 *
 * CAPFLEET_FAULTS_ONCE is a folder in which a fault leaves a file as it strikes; one that has its file there does not strike
 * again, in no process.
 */
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { CapfleetError } from "./contract/errors.ts";
import { FAULT_POINTS, type FaultPoint } from "./fault-points.ts";

export { FAULT_POINTS, type FaultPoint };

const ACTIONS = ["kill", "abort", "stop", "hang", "error"] as const;
export type FaultAction = (typeof ACTIONS)[number];

export interface Fault {
  point: FaultPoint;
  action: FaultAction;
  /** From 1; null: each time. */
  nth: number | null;
  /** Null: any. */
  about: string | null;
  /** Its words in the variable. */
  text: string;
}

/** Throws INVALID_CONFIG. */
export function parseFaults(text: string): Fault[] {
  return text.split(",").flatMap((part) => (part.trim() === "" ? [] : parseFault(part.trim())));
}

function parseFault(text: string): Fault {
  const refuse = (why: string) => new CapfleetError("INVALID_CONFIG", `CAPFLEET_FAULTS: ${text}: ${why}`);
  const found = /^([^=]+)=([a-z]+)(?:@([1-9]\d*))?(?::(.+))?$/.exec(text);
  if (!found) throw refuse("must be <point>=<action>[@<n>][:<about>]");
  const [, point = "", action = "", nth, about] = found;
  if (!Object.hasOwn(FAULT_POINTS, point)) throw refuse(`there is no fault point ${point}`);
  if (!ACTIONS.includes(action as FaultAction)) throw refuse(`an action is one of ${ACTIONS.join(", ")}`);
  return {
    point: point as FaultPoint,
    action: action as FaultAction,
    nth: nth === undefined ? null : Number(nth),
    about: about ?? null,
    text,
  };
}

type Strike = (fault: Fault, about: string | number | undefined) => void;

/** What of the faults is left to do in one process. */
export class Faults {
  readonly #faults: (Fault & { passed: number })[];
  readonly #onceFolder: string | null;
  readonly #strike: Strike;

  constructor(faults: readonly Fault[], onceFolder: string | null, strike: Strike) {
    this.#faults = faults.map((fault) => ({ ...fault, passed: 0 }));
    this.#onceFolder = onceFolder;
    this.#strike = strike;
  }

  pass(point: FaultPoint, about: string | number | undefined): void {
    for (const fault of this.#faults) {
      if (fault.point !== point || (fault.about !== null && fault.about !== String(about))) continue;
      fault.passed += 1;
      if (fault.nth !== null && fault.nth !== fault.passed) continue;
      if (this.#onceFolder === null || leaveFile(this.#onceFolder, fault)) this.#strike(fault, about);
    }
  }
}

/** False where the fault has struck before: of all processes one makes the file. */
function leaveFile(folder: string, { text }: Fault): boolean {
  mkdirSync(folder, { recursive: true });
  try {
    closeSync(openSync(join(folder, encodeURIComponent(text)), "wx"));
    return true;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw thrown;
  }
}

const SIGNALS = { kill: "SIGKILL", abort: "SIGABRT", stop: "SIGSTOP" } as const;

const strike: Strike = ({ action, point, text }, about) => {
  if (action === "error") throw new CapfleetError("STORE_UNAVAILABLE", `fault point ${text}`);
  writeSync(2, `fault point ${point} (${about ?? ""}): ${action}\n`);
  if (action === "hang") return standStill(Number.POSITIVE_INFINITY);
  process.kill(process.pid, SIGNALS[action]);
  // The signal is the main thread's: another one must not get any further until it has come.
  if (!isMainThread) standStill(LONGEST_MS);
};

const LONGEST_MS = 60_000;
const standStill = (ms: number) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

let faults: Faults | null | undefined;

/** A line at which the process may be made to fail; see the head of this file. */
export function faultPoint(point: FaultPoint, about?: string | number): void {
  if (faults === null) return;
  if (faults === undefined) {
    const { CAPFLEET_FAULTS, CAPFLEET_FAULTS_ONCE } = process.env;
    faults = CAPFLEET_FAULTS ? new Faults(parseFaults(CAPFLEET_FAULTS), CAPFLEET_FAULTS_ONCE || null, strike) : null;
  }
  faults?.pass(point, about);
}
