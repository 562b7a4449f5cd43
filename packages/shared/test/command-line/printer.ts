/** A command line that prints for as long as it is read. */
import { setImmediate } from "node:timers/promises";
import { Command } from "commander";
import { runToEnd } from "../../src/command-line.ts";

await runToEnd(
  new Command("printer").action(async () => {
    for (;;) {
      process.stdout.write("a line\n");
      await setImmediate();
    }
  }),
);
