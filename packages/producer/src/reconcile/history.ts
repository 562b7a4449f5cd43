/** The fleet's last hour, a sample every few seconds: how many rows a second, how many workers, how much is left to do. */
import { type FleetFigures, type FleetSample, type Presence, SAMPLE_SECONDS } from "@capfleet/shared/queues";

export class FleetHistory {
  #last: { at: number; rows: number } | null = null;

  /** What to note now; null until it is time. `now`: milliseconds since 1970. */
  sample({ rows, backlog }: FleetFigures, workers: readonly Presence[], now: number): FleetSample | null {
    const open = workers.flatMap(({ inFlight }) => inFlight);
    const done = rows.labelled + rows.failed + sum(open.map((shard) => shard.rows));
    const last = this.#last;
    if (last && now - last.at < SAMPLE_SECONDS * 1_000) return null;
    this.#last = { at: now, rows: done };
    // Nobody looked meanwhile: another producer did, or none.
    if (!last || now - last.at > 3 * SAMPLE_SECONDS * 1_000) return null;
    // A worker that dies takes rows along that it had not committed.
    const rate = Math.max(0, done - last.rows) / ((now - last.at) / 1_000);
    return { at: now, rate, workers: workers.length, backlog: sum(backlog.map(({ records }) => records)) };
  }
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
