import { expect, test } from "vitest";
import { addSums, HISTOGRAM_BINS, NO_SUMS, type Pair, sumRows, sumsSchema } from "../../src/contract/index.ts";

const web = (itm: number, kept: boolean): Pair => ({ text: "t", origin: "web", itm, kept });
const made = (itm: number, kept: boolean): Pair => ({ text: "t", origin: "synthetic", itm, kept });

test("rows without pairs have no sums of them", () => {
  expect(sumRows([{}, { warnings: ["w"] }])).toEqual({ rows: 2, failed: 0, warned: 1, errors: {} });
});

test("pairs are counted by origin, verdict and probability", () => {
  const sums = sumRows([{ pairs: [web(0, false), web(1, true), made(0.5, true)] }, { pairs: [] }, {}]);
  expect(sumsSchema.parse(sums)).toEqual(sums);
  expect(sums.pairs).toMatchObject({ web: { kept: 1, dropped: 1 }, synthetic: { kept: 1, dropped: 0 } });
  const bins = (histogram: number[]) => histogram.flatMap((count, i) => (count > 0 ? [[i, count]] : []));
  expect(bins(sums.pairs!.web.histogram)).toEqual([
    [0, 1],
    [HISTOGRAM_BINS - 1, 1],
  ]);
  expect(bins(sums.pairs!.synthetic.histogram)).toEqual([[HISTOGRAM_BINS / 2, 1]]);
});

test("scores are counted by their part of their range; rows that clean have theirs with the pairs", () => {
  const rows = [
    { caption: "c", score: Math.log(0.5) },
    { answers: [0, Math.log(0.01)].map((score) => ({ question: "q", answer: "a", score })) },
    { itm: 0.999 },
    { itc: -1.0000001 },
    { itc: 0 },
    { scores: [-0.3, 0.9] },
    { pairs: [web(0.7, true)] },
  ];
  const sums = sumRows(rows);
  const counts = sums.scores!.flatMap((count, i) => (count > 0 ? [[i, count]] : []));
  expect(counts).toEqual([
    [0, 2],
    [10, 2],
    [19, 2],
  ]);
  const parts = rows.map((row) => sumRows([row])).reduce(addSums, NO_SUMS);
  expect(parts).toEqual(sums);
});

test("sums of parts are the sum of all, whichever parts have pairs", () => {
  const parts = [[{ pairs: [web(0.2, false)] }], [{}], [{ pairs: [web(0.7, true), made(0.7, true)] }]];
  const added = parts.map(sumRows).reduce(addSums, NO_SUMS);
  expect(added).toEqual(sumRows(parts.flat()));
  expect(NO_SUMS).not.toHaveProperty("pairs");
});
