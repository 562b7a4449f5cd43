/**
 * `capfleet`: the command line. Exit codes: 0 done, 1 something failed, 2 the request was wrong, 130 Ctrl-C, 141 nobody
 * reads what it prints.
 */
import { runToEnd } from "@capfleet/shared/command-line";
import { commandLine } from "./program.ts";

await runToEnd(commandLine());
