/**
 * When a schedule is due. A pattern whose minutes and hours have neither `*` nor a step names times of the day, as in Vixie
 * cron: one that the clock leaves out in spring is due as soon as the clock has moved on, one that comes twice in autumn is
 * due the first time. Other patterns are intervals, which go on by real time.
 */
import { CapfleetError } from "@capfleet/shared/contract";
import { Cron } from "croner";

export interface Timing {
  /** minute, hour, day of the month, month, day of the week. */
  cron: string;
  /** An IANA name, such as Europe/Berlin. */
  timeZone: string;
}

/** Throws INVALID_OPTION: no such zone, no pattern, or one that is never due. */
export function checkTiming(timing: Timing, now: number): void {
  const { cron, timeZone } = timing;
  try {
    new Intl.DateTimeFormat("en", { timeZone });
  } catch {
    throw invalid(`--tz "${timeZone}": no such time zone; it is a name such as Europe/Berlin`);
  }
  // croner also takes dates, and "?" for the moment at which it reads the pattern.
  if (cron.trim().split(/\s+/).length !== 5 || cron.includes("?"))
    throw invalid(`--cron "${cron}": it has five parts: minute, hour, day of the month, month, day of the week`);
  let next: number | null;
  try {
    next = nextDue(timing, now);
  } catch (thrown) {
    throw invalid(`--cron "${cron}": ${(thrown as Error).message.replace(/^Cron\w*: /, "")}`);
  }
  if (next === null) throw invalid(`--cron "${cron}": there is no such day`);
}

/** The first due time after `now`, in milliseconds since 1970; null where there is none. */
export function nextDue(timing: Timing, now: number): number | null {
  return patternOf(timing).nextRun(new Date(now))?.getTime() ?? null;
}

/** The last due time until `now`, `now` included; null where there was none. */
export function latestDue(timing: Timing, now: number): number | null {
  const [latest] = patternOf(timing).previousRuns(1, new Date(now + 1));
  return latest?.getTime() ?? null;
}

const patternOf = ({ cron, timeZone }: Timing) =>
  new Cron(cron.trim(), { timezone: timeZone, mode: "5-part", fixedTimeRule: "no-wildcard" });
const invalid = (message: string) => new CapfleetError("INVALID_OPTION", message);
