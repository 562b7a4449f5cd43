/** `report.html` of a cleaned dataset: what was kept and dropped, how sure the filter was, and examples. One file. */
import {
  type CapFiltSpec,
  HISTOGRAM_BINS,
  type JobFile,
  layout,
  type Pair,
  type PairSums,
  type Sums,
} from "@capfleet/shared/contract";
import type { Store, Stores } from "@capfleet/shared/storage";
import { type Example, findExamples, type Kind } from "./examples.ts";

const ORIGINS: Record<Pair["origin"], string> = { web: "From the dataset", synthetic: "Made by the captioner" };

/** Writes the report. Safe to repeat. */
export async function writeReport(file: JobFile, pairs: NonNullable<Sums["pairs"]>, store: Store, stores: Stores) {
  const examples = await findExamples(store, stores);
  const page = reportPage(file, pairs, examples);
  await store.put(layout.report, page, { contentType: "text/html; charset=utf-8" });
}

function reportPage(file: JobFile, pairs: NonNullable<Sums["pairs"]>, examples: ReadonlyMap<Kind, Example[]>): string {
  const { task, engines, input } = file.spec;
  const { threshold } = task as CapFiltSpec;
  const models = engines.map(({ model, precision }) => `${model} (${precision})`).join(", ");
  const origins = (Object.keys(ORIGINS) as Pair["origin"][]).filter((origin) => total(pairs[origin]) > 0);
  const sections = origins.map((origin) => section(origin, pairs[origin], threshold, examples));
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="content-security-policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${escapeHtml(file.id)}: what was kept</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
  body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
  .number { font-variant-numeric: tabular-nums; text-align: right; }
  table { border-collapse: collapse; }
  th, td { padding: 0.25rem 1rem 0.25rem 0; text-align: left; }
  .bars { display: grid; grid-template-columns: repeat(${HISTOGRAM_BINS}, 1fr); align-items: end; gap: 2px; height: 9rem; max-width: 40rem; }
  .bars div { background: #2a7; min-height: 1px; }
  .bars .dropped { background: #c55; }
  .axis { display: flex; justify-content: space-between; max-width: 40rem; font-size: 0.85rem; }
  ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: 1rem; padding: 0; list-style: none; }
  figure { margin: 0; border: 1px solid #8885; border-radius: 0.5rem; overflow: hidden; height: 100%; }
  figure img { width: 100%; aspect-ratio: 1; object-fit: contain; display: block; background: #8882; }
  figcaption { padding: 0.5rem 0.7rem; overflow-wrap: anywhere; }
  small { display: block; opacity: 0.75; }
</style>
<h1>What was kept</h1>
<p>${escapeHtml(task.name)} of ${escapeHtml(input.uri)} with ${escapeHtml(models)}. A text is kept that matches its image
with a probability of at least ${threshold}.</p>
<table>
<tr><th>texts<th class="number">kept<th class="number">dropped<th class="number">kept, of all</tr>
${origins.map((origin) => countsRow(ORIGINS[origin], pairs[origin])).join("\n")}
</table>
${sections.join("\n")}
</html>
`;
}

const total = ({ kept, dropped }: PairSums) => kept + dropped;

function countsRow(name: string, sums: PairSums): string {
  const share = `${((100 * sums.kept) / total(sums)).toFixed(1)} %`;
  const cells = [sums.kept.toLocaleString("en-US"), sums.dropped.toLocaleString("en-US"), share];
  return `<tr><td>${name}${cells.map((cell) => `<td class="number">${cell}`).join("")}</tr>`;
}

function section(origin: Pair["origin"], sums: PairSums, threshold: number, examples: ReadonlyMap<Kind, Example[]>) {
  const most = Math.max(...sums.histogram);
  const bars = sums.histogram.map((count, i) => {
    const [from, to] = [i / HISTOGRAM_BINS, (i + 1) / HISTOGRAM_BINS];
    const side = to <= threshold ? ' class="dropped"' : "";
    const title = `${from.toFixed(2)} to ${to.toFixed(2)}: ${count}`;
    return `<div${side} style="height:${((100 * count) / most).toFixed(1)}%" title="${title}"></div>`;
  });
  const shown = (["kept", "dropped"] as const).map((verdict) => {
    const some = examples.get(`${origin} ${verdict}`) ?? [];
    return some.length === 0 ? "" : `<h3>${verdict}, for example</h3>\n<ul>\n${some.map(card).join("\n")}\n</ul>`;
  });
  return `<h2>${ORIGINS[origin]}</h2>
<p>How likely the texts are to match:</p>
<div class="bars" role="img" aria-label="histogram of ${total(sums)} probabilities">${bars.join("")}</div>
<div class="axis"><span>0</span><span>0.5</span><span>1</span></div>
${shown.join("\n")}`;
}

function card({ id, pair, picture }: Example): string {
  const image = picture ? `<img alt="" src="${picture}">` : "";
  return `<li><figure>${image}
<figcaption>${escapeHtml(pair.text)}<small>${pair.itm.toFixed(3)} · ${escapeHtml(id)}</small></figcaption></figure></li>`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
