/** When schedules are due, with the dates on which clocks changed or will change in 2026. */
import { expect, test } from "vitest";
import { checkTiming, latestDue, nextDue } from "../src/schedules/due.ts";

const iso = (time: number | null) => time && new Date(time).toISOString().replace(":00.000Z", "Z");

/** The next due times after `from`. */
function dueTimes(cron: string, timeZone: string, from: string, most: number) {
  const times: number[] = [];
  let at: number | null = Date.parse(from);
  while (times.length < most) {
    at = nextDue({ cron, timeZone }, at);
    if (at === null) break;
    times.push(at);
  }
  return times;
}

test.each([
  // Berlin, 29 March: 02:00 to 03:00 is left out. 25 October: it comes twice.
  ["30 2 * * *", "Europe/Berlin", "2026-03-28T00:00Z", ["03-28T01:30Z", "03-29T01:00Z", "03-30T00:30Z"]],
  ["0 2 * * *", "Europe/Berlin", "2026-03-28T00:00Z", ["03-28T01:00Z", "03-29T01:00Z", "03-30T00:00Z"]],
  ["0 2,14 * * *", "Europe/Berlin", "2026-03-28T20:00Z", ["03-29T01:00Z", "03-29T12:00Z", "03-30T00:00Z"]],
  ["30 2 * * *", "Europe/Berlin", "2026-10-24T00:00Z", ["10-24T00:30Z", "10-25T00:30Z", "10-26T01:30Z"]],
  ["0 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25T00:00Z", "10-26T01:00Z"]],
  ["0 * * * *", "Europe/Berlin", "2026-10-24T23:30Z", ["10-25T00:00Z", "10-25T01:00Z", "10-25T02:00Z"]],
  // New York, 8 March and 1 November.
  ["30 2 * * *", "America/New_York", "2026-03-07T00:00Z", ["03-07T07:30Z", "03-08T07:00Z", "03-09T06:30Z"]],
  ["30 1 * * *", "America/New_York", "2026-10-31T00:00Z", ["10-31T05:30Z", "11-01T05:30Z", "11-02T06:30Z"]],
  // Half an hour from the full hour, and (Lord Howe) a change by half an hour.
  ["0 2 * * *", "Asia/Kolkata", "2026-03-28T00:00Z", ["03-28T20:30Z", "03-29T20:30Z"]],
  ["15 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00Z", ["10-02T15:45Z", "10-03T15:30Z", "10-04T15:15Z"]],
  ["45 1 * * *", "Australia/Lord_Howe", "2026-04-03T00:00Z", ["04-03T14:45Z", "04-04T14:45Z", "04-05T15:15Z"]],
])("%s in %s after %s", (cron, timeZone, from, times) => {
  const due = dueTimes(cron, timeZone, from, times.length);
  expect(due.map(iso)).toEqual(times.map((time) => `2026-${time}`));
});

test.each([
  ["30 2 * * *", "Europe/Berlin"],
  ["0 2 * * *", "America/New_York"],
  ["15,45 1,2 * * *", "Australia/Lord_Howe"],
  ["*/20 * * * *", "Europe/Berlin"],
  ["0 2 * * 1-5", "Asia/Kolkata"],
])("looking back finds what looking ahead has found: %s in %s, over 2026", (cron, timeZone) => {
  const timing = { cron, timeZone };
  const times = dueTimes(cron, timeZone, "2026-01-01T00:00Z", 366);
  expect(times).toHaveLength(366);
  for (const [i, time] of times.entries()) {
    expect(latestDue(timing, time)).toBe(time);
    expect(latestDue(timing, time + 30_500)).toBe(time);
    if (i > 0) expect(latestDue(timing, time - 1)).toBe(times[i - 1]);
  }
});

test.each([
  ["0 2 * *", "UTC", "five parts"],
  ["0 0 2 * * *", "UTC", "five parts"],
  ["2026-12-24T20:00:00", "UTC", "five parts"],
  ["? 2 * * *", "UTC", "five parts"],
  ["60 2 * * *", "UTC", "Invalid value for minute"],
  ["every night at two o'clock", "UTC", "--cron"],
  ["0 2 30 2 *", "UTC", "no such day"],
  ["0 2 * * *", "Europe/Atlantis", "no such time zone"],
  ["0 2 * * *", "", "no such time zone"],
])("%s in %s is refused", (cron, timeZone, message) => {
  expect(() => checkTiming({ cron, timeZone }, Date.parse("2026-01-01T00:00Z"))).toThrow(
    expect.objectContaining({ code: "INVALID_OPTION", message: expect.stringContaining(message) }),
  );
});

test("a day that comes every four years is due", () => {
  const timing = { cron: "0 2 29 2 *", timeZone: "UTC" };
  checkTiming(timing, Date.parse("2026-01-01T00:00Z"));
  expect(iso(nextDue(timing, Date.parse("2026-01-01T00:00Z")))).toBe("2028-02-29T02:00Z");
});
