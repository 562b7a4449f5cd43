/** What the two command lines share: numbers and texts as options, and how a command ends. */
import { type Command, CommanderError, InvalidArgumentError } from "commander";
import { asCapfleetError, CapfleetError } from "./contract/errors.ts";

/** An option's parser: a whole number from `least` to `most`. */
export const wholeNumber =
  (most: number, least = 1) =>
  (text: string) => {
    const value = numberOf(text);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It is a whole number from ${least} to ${most}.`);
  };

/** An option's parser: a number from `least` to `most`. */
export const numberFrom = (least: number, most: number) => (text: string) => {
  const value = numberOf(text);
  if (value >= least && value <= most) return value;
  throw new InvalidArgumentError(`It is a number from ${least} to ${most}.`);
};

/** An option's parser: a number above 0, at most `most`. */
export const numberAbove0 = (most: number) => (text: string) => {
  const value = numberOf(text);
  if (value > 0 && value <= most) return value;
  throw new InvalidArgumentError(`It is a number above 0, at most ${most}.`);
};

/** An option's parser: a text that is not blank, of at most `most` characters. */
export const someText = (most: number) => (text: string) => {
  if (text.trim() !== "" && text.length <= most) return text;
  throw new InvalidArgumentError(`It is a text of 1 to ${most} characters, not blank.`);
};

/** The parser of an option that may be repeated: at most `most` values. */
export const many =
  <T>(parse: (text: string) => T, most: number) =>
  (text: string, before: readonly T[] = []) => {
    if (before.length === most) throw new InvalidArgumentError(`It can be given ${most} times.`);
    return [...before, parse(text)];
  };

/** NaN where the text is blank: `Number` would take it for 0. */
const numberOf = (text: string) => (text.trim() === "" ? Number.NaN : Number(text));

/** As of a process that SIGPIPE ends: 128 and its number. Node ignores the signal and has an error instead. */
const SIGPIPE = 141;

/**
 * Runs the command line, and ends the process with it: 0, or the exit code that the command has set; 141 as soon as
 * nobody reads what it prints (`… | head`), quietly; else as the error asks.
 */
export async function runToEnd(program: Command): Promise<never> {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(SIGPIPE);
    endWith(error);
  });
  quiet(program);
  try {
    await program.parseAsync();
  } catch (thrown) {
    endWith(thrown);
  }
  process.exit(process.exitCode ?? 0);
}

/** Errors are thrown, and printed in one place. */
function quiet(command: Command): void {
  command.exitOverride().configureOutput({ outputError: () => {} });
  for (const each of command.commands) quiet(each);
}

/**
 * Ends the process as the error asks: one line with the code and what is wrong, one with what to do. Never a stack trace,
 * unless CAPFLEET_LOG=debug asks for it. Exit codes: 1 something failed, 2 the request was wrong, 130 interrupted.
 */
function endWith(thrown: unknown): never {
  if (thrown instanceof CommanderError && thrown.exitCode === 0) process.exit(0);
  // No command was given, and the help that says which there are has been printed.
  if (thrown instanceof CommanderError && thrown.code === "commander.help") process.exit(2);
  const error =
    thrown instanceof CommanderError
      ? new CapfleetError("USAGE", thrown.message.replace(/^error: /, ""))
      : asCapfleetError(thrown);
  process.stderr.write(`${error.code}: ${error.message}\n  ${error.fix}\n`);
  if (process.env.CAPFLEET_LOG === "debug") process.stderr.write(`${error.stack}\n`);
  process.exit(error.code === "INTERRUPTED" ? 130 : error.exitCode);
}
