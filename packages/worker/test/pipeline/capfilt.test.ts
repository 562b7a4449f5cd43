import type { CapFiltSpec } from "@capfleet/shared/contract";
import { expect, test } from "vitest";
import type { Output } from "../../src/engine/engine.ts";
import { capfilt } from "../../src/pipeline/capfilt.ts";

const task: CapFiltSpec = { name: "filter", texts: { column: "alt" }, threshold: 0.5 };

/** A captioner that says these, and a filter that thinks this of each text. */
const captioner =
  (...texts: string[]) =>
  async (): Promise<Output> => ({
    task: "caption",
    captions: texts.map((text) => ({ ids: [], text, score: -1, rank: -1 })),
  });
function filter(scores: Record<string, number>, cut: number[] = []) {
  const seen: string[][] = [];
  const match = async (texts: readonly string[]): Promise<Output> => {
    seen.push([...texts]);
    return { task: "itm", scores: texts.map((text) => scores[text]!), cut };
  };
  return { match, seen };
}

test("texts of both origins are kept from the threshold on", async () => {
  const { match } = filter({ dog: 0.5, car: 0.499, "a dog": 0.9, "a car": 0 });
  expect(await capfilt(task, ["dog", "car"], captioner("a dog", "a car"), match)).toEqual({
    pairs: [
      { text: "dog", origin: "web", itm: 0.5, kept: true },
      { text: "car", origin: "web", itm: 0.499, kept: false },
      { text: "a dog", origin: "synthetic", itm: 0.9, kept: true },
      { text: "a car", origin: "synthetic", itm: 0, kept: false },
    ],
  });
});

test("each text is judged once, and one that the web has is the web's", async () => {
  const { match, seen } = filter({ "a dog": 0.9, "a cat": 0.2 });
  const row = await capfilt(task, ["a dog", "a dog"], captioner("a cat", "a dog", "a cat", ""), match);
  expect(seen).toEqual([["a dog", "a cat"]]);
  expect(row.pairs!.map(({ text, origin }) => [text, origin])).toEqual([
    ["a dog", "web"],
    ["a cat", "synthetic"],
  ]);
});

test("without a captioner only the dataset's texts are judged", async () => {
  const { match, seen } = filter({ dog: 1 });
  await capfilt(task, ["dog"], null, match);
  expect(seen).toEqual([["dog"]]);
});

test("where there is no text at all there is nothing to judge", async () => {
  const { match, seen } = filter({});
  expect(await capfilt(task, [], captioner(""), match)).toEqual({ pairs: [] });
  expect(seen).toEqual([]);
});

test("a text that the filter can't read to its end is named", async () => {
  const { match } = filter({ long: 1, short: 1 }, [0]);
  const row = await capfilt(task, ["long", "short"], null, match);
  expect(row.warnings).toEqual([expect.stringContaining('"long"')]);
});
