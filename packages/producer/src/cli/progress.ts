/** Progress on stderr: one live line on a terminal, a plain line every few seconds elsewhere. */
import type { Progress } from "@capfleet/shared/queues";
import { progressLine } from "./format.ts";

const PLAIN_MS = 5_000;

export class ProgressDisplay {
  readonly #stream: NodeJS.WriteStream;
  #shown = "";
  #plainAt = 0;

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
  }

  show(progress: Progress): void {
    const line = progressLine(progress);
    if (this.#stream.isTTY) {
      if (line === this.#shown) return;
      const room = (this.#stream.columns ?? 80) - 1;
      this.#stream.write(`\r\u001b[2K${line.length > room ? `${line.slice(0, room - 1)}…` : line}`);
      this.#shown = line;
    } else if (performance.now() >= this.#plainAt) {
      this.#stream.write(`${line}\n`);
      this.#plainAt = performance.now() + PLAIN_MS;
    }
  }

  /** Takes the live line away, so that something else can be printed. */
  clear(): void {
    if (this.#stream.isTTY && this.#shown !== "") this.#stream.write("\r\u001b[2K");
    this.#shown = "";
  }

  say(line: string): void {
    this.clear();
    this.#stream.write(`${line}\n`);
  }
}
