/** How figures are shown to people. */
import type { Cost, Summary } from "@capfleet/shared/contract";
import type { Progress } from "@capfleet/shared/queues";
import { retryableOf } from "../jobs/status.ts";

export const count = (n: number) => n.toLocaleString("en-US");
export const plural = (n: number, one: string, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Of a price, in whatever currency. */
export const amount = (n: number) =>
  n > 0 && n < 1
    ? n.toLocaleString("en-US", { maximumSignificantDigits: 2 })
    : n.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const megabytes = (bytes: number) => `${count(Math.ceil(bytes / 1e6))} MB`;

export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [hours, minutes, rest] = [Math.floor(whole / 3_600), Math.floor((whole % 3_600) / 60), whole % 60];
  if (hours < 1) return `${minutes} min ${rest} s`;
  if (hours < 48) return `${hours} h ${minutes} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const rate = (perSecond: number) =>
  `${perSecond < 10 ? perSecond.toFixed(2) : count(Math.round(perSecond))} rows/s`;

/** One line: what, how far, how fast, how long, what is in the way. */
export function progressLine(progress: Progress): string {
  const { state, done, total, planned, failed, waiting, reason } = progress;
  const parts: string[] = [state];
  if (total !== null)
    parts.push(`${count(done)}/${count(total)} (${total === 0 ? 100 : Math.floor((100 * done) / total)}%)`);
  else parts.push(`${count(done)} done, ${count(planned)} planned so far`);
  if (failed > 0) parts.push(`${count(failed)} failed`);
  if (progress.rate && state === "running") parts.push(rate(progress.rate));
  if (progress.etaSeconds !== null && state === "running") parts.push(`ETA ${duration(progress.etaSeconds)}`);
  if (reason) parts.push(`${reason.code}: ${reason.message}`);
  if (waiting) parts.push(`waiting: ${waiting}`);
  return parts.join("  ");
}

/** What a job has cost, and will; null before anything is measured. */
export function costText(cost: Cost | null, hasEnded: boolean): string | null {
  if (!cost) return null;
  const { workerSeconds, spent, per1000, estimated, isEstimate } = cost;
  const about = isEstimate ? "about " : "";
  const work = `${about}${duration(workerSeconds)} of workers`;
  if (spent === null || per1000 === null) return work;
  const whole = hasEnded || estimated === null ? "" : `, about ${amount(estimated)} in all`;
  return `${about}${amount(spent)}${hasEnded ? "" : " so far"}${whole} (${amount(per1000)} per 1,000; ${work})`;
}

export function summaryText(summary: Summary, out: string): string {
  const { rows, succeeded, failed, warned, errors, seconds, provenance, task } = summary;
  const speed = seconds > 0 ? `, ${rate(rows / seconds)} from submission to end` : "";
  const cost = costText(summary.cost, true);
  const lines = [
    `${summary.state}: ${plural(succeeded, "row")} labelled, ${count(failed)} failed (${duration(seconds)}${speed})`,
    ...Object.entries(errors).map(([code, n]) => `  ${plural(n, "row")} failed with ${code}`),
    ...(warned > 0 ? [`  ${plural(warned, "row")} with warnings, such as a text that was cut`] : []),
    ...(summary.reason ? [`  ${summary.reason.code}: ${summary.reason.message}`] : []),
    `task     ${task} with ${provenance.engines.map(engineText).join(" and ")}`,
    ...(summary.pairs ? pairLines(summary.pairs, out) : []),
    `results  ${out}results/`,
    ...(summary.files ? [`data     ${out}data/ (${plural(summary.files, "file")})`] : []),
    ...(cost === null ? [] : [`cost     ${cost}`]),
    `job      ${summary.id}`,
  ];
  if (failed > 0) lines.push(`see them with: capfleet results ${summary.id} --errors`);
  const retryable = retryableOf(summary);
  const goesOn = summary.state === "failed" || retryable > 0;
  if (goesOn && summary.state !== "cancelled") lines.push(`try again with: capfleet retry ${summary.id}`);
  return lines.join("\n");
}

const engineText = ({ model, precision, digest }: Summary["provenance"]["engines"][number]) =>
  `${model} (${precision}, engine ${digest})`;

function pairLines({ web, synthetic }: NonNullable<Summary["pairs"]>, out: string): string[] {
  const kept = (sums: typeof web) => `${count(sums.kept)} of ${count(sums.kept + sums.dropped)}`;
  return [`texts    kept: ${kept(web)} of the dataset, ${kept(synthetic)} captions`, `report   ${out}report.html`];
}
