/**
 * How long it took after each fault, from its end where it lasts, until rows were committed again (`recovery`), and until
 * everything was committed that was in work when it struck (`inWork`): shards with a later one of their job committed already.
 */
import type { ChaosJob } from "./jobs.ts";
import type { KindName } from "./plan.ts";

interface Open {
  kind: KindName;
  over: number;
  rows: number;
  gaps: { job: ChaosJob; shard: number }[];
  isAgain: boolean;
}

export class Recoveries {
  readonly #open: Open[] = [];
  readonly #again: { kind: KindName; seconds: number }[] = [];
  readonly #whole: number[] = [];

  /** To be called when a fault is over; `gaps`: what was in work when it struck. */
  begin(kind: KindName, rows: number, gaps: Open["gaps"], now: number): void {
    this.#open.push({ kind, over: now, rows, gaps, isAgain: false });
  }

  /** To be called whenever the jobs have been looked at. */
  look(rows: number, now: number): void {
    for (const fault of [...this.#open]) {
      const seconds = (now - fault.over) / 1_000;
      if (!fault.isAgain && rows > fault.rows) {
        fault.isAgain = true;
        this.#again.push({ kind: fault.kind, seconds });
      }
      if (!fault.isAgain || fault.gaps.some(({ job, shard }) => !job.committed.has(shard))) continue;
      this.#whole.push(seconds);
      this.#open.splice(this.#open.indexOf(fault), 1);
    }
  }

  /** In seconds. */
  figures() {
    const byKind: Record<string, Spread> = {};
    for (const kind of [...new Set(this.#again.map(({ kind }) => kind))].sort())
      byKind[kind] = spread(this.#again.filter((fault) => fault.kind === kind).map(({ seconds }) => seconds));
    const all = this.#again.map(({ seconds }) => seconds);
    return { recoverySeconds: spread(all), inWorkSeconds: spread(this.#whole), recoverySecondsByKind: byKind };
  }
}

interface Spread {
  median: number | null;
  worst: number | null;
}

function spread(seconds: number[]): Spread {
  const sorted = seconds.toSorted((a, b) => a - b);
  const at = (i: number) => (sorted.length === 0 ? null : Math.round(sorted[i]! * 10) / 10);
  return { median: at(sorted.length >> 1), worst: at(sorted.length - 1) };
}
