import { expect, test } from "vitest";
import { engineSet, servedSets } from "../../src/queues/index.ts";

const [a, b, c] = ["aa", "bb", "cc"].map((digest) => ({ digest })) as [{ digest: string }, ...{ digest: string }[]];

test("a set of engines has one name, whatever their order, and an engine twice is there once", () => {
  expect(engineSet([b!, a])).toBe("aa+bb");
  expect(engineSet([a, b!])).toBe("aa+bb");
  expect(engineSet([a, a])).toBe("aa");
});

test("a worker serves each of its engines, and every two of them", () => {
  expect(servedSets([a]).sort()).toEqual(["aa"]);
  expect(servedSets([a, b!, c!]).sort()).toEqual(["aa", "aa+bb", "aa+cc", "bb", "bb+cc", "cc"]);
});
