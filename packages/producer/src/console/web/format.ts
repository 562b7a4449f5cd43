/** Figures and names as people read them. */
import type { JobTask } from "./types.ts";

const COUNT = new Intl.NumberFormat("en-US");
const SHORT = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
const DAY_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
] as const;

export const count = (n: number): string => COUNT.format(n);
export const plural = (n: number, what: string): string => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
export const short = (n: number): string => (Math.abs(n) >= 1_000 ? COUNT.format(Math.round(n)) : SHORT.format(n));
export const percent = (part: number): string => `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
/** In the currency that prices are given in, which nobody has named. */
export const money = (amount: number): string =>
  amount >= 100 ? COUNT.format(Math.round(amount)) : SHORT.format(amount);

export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1_000))} ms`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3_600)} h`;
}

export const time = (iso: string): string => DAY_TIME.format(new Date(iso));

export function ago(iso: string): string {
  const seconds = (Date.parse(iso) - Date.now()) / 1_000;
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS[3];
  return RELATIVE.format(Math.trunc(seconds / size), unit);
}

/** What a job of the task makes. */
export const MADE: Record<JobTask, string> = {
  caption: "Captions",
  vqa: "Answers",
  itm: "Matches",
  itc: "Similarities",
  embed: "Embeddings",
  capfilt: "CapFilt",
  filter: "Filtered texts",
};
