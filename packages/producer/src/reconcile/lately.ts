/** How fast one worker labels, by what has been reported lately. */
import type { Timed } from "@capfleet/shared/contract";

/** After so much further work, what was measured counts half. By work, not by time: an idle fleet keeps its rate. */
export const HALF_LIFE_SECONDS = 1_200;

/** `rows` / `workerSeconds` is a worker's rate. Both are 0 before anything is measured. */
export class Lately {
  rows = 0;
  workerSeconds = 0;

  add({ rows, seconds }: Pick<Timed, "rows" | "seconds">): void {
    const fades = 0.5 ** (seconds / HALF_LIFE_SECONDS);
    this.rows = this.rows * fades + rows;
    this.workerSeconds = this.workerSeconds * fades + seconds;
  }
}
