/** A download's progress on stderr: one line that changes on a terminal, a line every few seconds elsewhere. */
import type { FetchListener, FetchProgress } from "@capfleet/shared/models";

const TERMINAL_MS = 200;
const LOG_MS = 5_000;

export class Progress implements FetchListener {
  #shown = 0;
  #isLineOpen = false;

  readonly progress = ({ file, received, total }: FetchProgress): void => {
    const isLast = received === total;
    const now = performance.now();
    if (!isLast && now - this.#shown < (process.stderr.isTTY ? TERMINAL_MS : LOG_MS)) return;
    this.#shown = now;
    const text = `${file}: ${megabytes(received)} of ${megabytes(total)} MB`;
    if (!process.stderr.isTTY) process.stderr.write(`${text}\n`);
    else {
      process.stderr.write(`\r\x1b[K${text}`);
      this.#isLineOpen = true;
    }
  };

  readonly note = (text: string): void => {
    this.end();
    process.stderr.write(`${text}\n`);
  };

  /** Ends the line that changes. */
  end(): void {
    if (this.#isLineOpen) process.stderr.write("\n");
    this.#isLineOpen = false;
  }
}

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
