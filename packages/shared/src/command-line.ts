/** What the two command lines share: numbers as options, and how a command ends. */
import { CommanderError, InvalidArgumentError } from "commander";
import { asCapfleetError, CapfleetError } from "./contract/errors.ts";

/** An option's parser: a whole number from 1 to `most`. */
export const wholeNumber = (most: number) => (text: string) => {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new InvalidArgumentError(`It is a whole number from 1 to ${most}.`);
};

/**
 * Ends the process as the error asks: one line with the code and what is wrong, one with what to do. Never a stack trace,
 * unless CAPFLEET_LOG=debug asks for it. Exit codes: 1 something failed, 2 the request was wrong, 130 interrupted.
 */
export function endWith(thrown: unknown): never {
  if (thrown instanceof CommanderError && thrown.exitCode === 0) process.exit(0);
  const error =
    thrown instanceof CommanderError
      ? new CapfleetError("USAGE", thrown.message.replace(/^error: /, ""))
      : asCapfleetError(thrown);
  process.stderr.write(`${error.code}: ${error.message}\n  ${error.fix}\n`);
  if (process.env.CAPFLEET_LOG === "debug") process.stderr.write(`${error.stack}\n`);
  process.exit(error.code === "INTERRUPTED" ? 130 : error.exitCode);
}
