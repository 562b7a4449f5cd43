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
    process.exit(error.code === "EPIPE" ? SIGPIPE : report(error));
  });
  process.exit(await runCommand(program));
}

/** Runs the command line with these arguments, and tells its exit code; what is wrong is printed. */
export async function runCommand(program: Command, args: readonly string[] = process.argv.slice(2)): Promise<number> {
  quiet(program);
  try {
    await program.parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (thrown) {
    return report(thrown);
  }
}

/** Errors are thrown, and printed in one place. */
function quiet(command: Command): void {
  command.exitOverride().configureOutput({ outputError: () => {} });
  for (const each of command.commands) quiet(each);
}

/**
 * Prints an error, one line with the code and what is wrong, one with what to do, and tells the exit code: 1 something
 * failed, 2 the request was wrong, 130 interrupted. Never a stack trace, unless CAPFLEET_LOG=debug asks for it.
 */
function report(thrown: unknown): number {
  if (thrown instanceof CommanderError && thrown.exitCode === 0) return 0;
  // No command was given, and the help that says which there are has been printed.
  if (thrown instanceof CommanderError && thrown.code === "commander.help") return 2;
  const error =
    thrown instanceof CommanderError
      ? new CapfleetError("USAGE", thrown.message.replace(/^error: /, ""))
      : asCapfleetError(thrown);
  process.stderr.write(`${error.code}: ${error.message}\n  ${error.fix}\n`);
  if (process.env.CAPFLEET_LOG === "debug") process.stderr.write(`${error.stack}\n`);
  return error.code === "INTERRUPTED" ? 130 : error.exitCode;
}
