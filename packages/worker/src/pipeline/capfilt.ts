/**
 * CapFilt, as BLIP's authors cleaned their web datasets (Li et al. 2022, section 3.3): a captioner makes texts for each
 * image, and a filter keeps those texts, the web's and the made ones, that match it.
 */
import type { CapFiltSpec, Pair, ResultRow } from "@capfleet/shared/contract";
import type { Output } from "../engine/engine.ts";

/**
 * `web`: the record's own texts. `caption` makes captions (null: none are wanted); `match` says how likely each text is to
 * match. Texts come once: a caption that the web has as well is the web's. What is empty matches nothing, and is left out.
 */
export async function capfilt(
  { threshold }: CapFiltSpec,
  web: readonly string[],
  caption: (() => Promise<Output>) | null,
  match: (texts: readonly string[]) => Promise<Output>,
): Promise<Partial<ResultRow>> {
  const made = caption ? await caption() : null;
  const origins = new Map<string, Pair["origin"]>();
  for (const text of web) if (text !== "") origins.set(text, "web");
  for (const { text } of made?.task === "caption" ? made.captions : []) {
    if (text !== "" && !origins.has(text)) origins.set(text, "synthetic");
  }
  if (origins.size === 0) return { pairs: [] };
  const texts = [...origins.keys()];
  const matched = await match(texts);
  if (matched.task !== "itm") throw new Error(`the filter answered with ${matched.task}`);
  const pairs = texts.map((text, i): Pair => {
    const itm = matched.scores[i]!;
    return { text, origin: origins.get(text)!, itm, kept: itm >= threshold };
  });
  const warnings = matched.cut.map(
    (i) => `${JSON.stringify(texts[i]!.slice(0, 40))}… is too long for the filter: its end was cut off`,
  );
  return { pairs, ...(warnings.length > 0 && { warnings }) };
}
