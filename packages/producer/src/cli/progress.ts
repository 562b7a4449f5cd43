/** Progress on stderr: one live line on a terminal, a plain line every few seconds elsewhere. */
import type { Fetching } from "@capfleet/shared/models";
import type { Progress } from "@capfleet/shared/queues";
import type { Stores } from "@capfleet/shared/storage";
import { megabytes, progressLine } from "./format.ts";

const PLAIN_MS = 5_000;

export class ProgressDisplay {
  readonly #stream: NodeJS.WriteStream;
  #shown = "";
  #plainAt = 0;

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
  }

  show(progress: Progress): void {
    this.line(progressLine(progress));
  }

  line(line: string): void {
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

/** Finds a model, and shows how it is downloaded, where it is. */
export async function showingDownload<T>(stores: Stores, find: (fetching: Fetching) => Promise<T>): Promise<T> {
  const display = new ProgressDisplay();
  const fetching: Fetching = {
    stores,
    progress: ({ file, received, total }) =>
      display.line(`downloading ${file}: ${megabytes(received)} of ${megabytes(total)}`),
    note: (text) => display.say(text),
  };
  try {
    return await find(fetching);
  } finally {
    display.clear();
  }
}
