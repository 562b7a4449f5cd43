import { describe, expect, test } from "vitest";
import { DeficitRoundRobin, type Runnable } from "../src/reconcile/round-robin.ts";

const job = (id: string, weight: number, available = 1_000, cost = 512): Runnable => ({ id, weight, cost, available });
const plain = (shares: Map<string, number>) => Object.fromEntries(shares);

/** What each job gets in total over many rounds of a small window. */
function total(jobs: Runnable[], rounds: number, room: number): Record<string, number> {
  const robin = new DeficitRoundRobin();
  const sums: Record<string, number> = {};
  for (let round = 0; round < rounds; round++) {
    for (const [id, n] of robin.share(jobs, room)) sums[id] = (sums[id] ?? 0) + n;
  }
  return sums;
}

describe("deficit round-robin", () => {
  test("a job alone gets the whole room, and no more than it has", () => {
    expect(plain(new DeficitRoundRobin().share([job("a", 9)], 8))).toEqual({ a: 8 });
    expect(plain(new DeficitRoundRobin().share([job("a", 1, 3)], 8))).toEqual({ a: 3 });
  });

  test("equal jobs get equal shares, even where the room is smaller than the number of jobs", () => {
    const sums = total([job("a", 1), job("b", 1), job("c", 1)], 300, 1);
    expect(sums).toEqual({ a: 100, b: 100, c: 100 });
  });

  test("lanes share nine to one", () => {
    const { normal, bulk } = total([job("normal", 9), job("bulk", 1)], 500, 4);
    expect(normal! / bulk!).toBeCloseTo(9, 0);
    expect(normal! + bulk!).toBe(2_000);
  });

  test("shares are of work, not of shards: small shards come more often", () => {
    const { large, small } = total([job("large", 1, 1_000, 512), job("small", 1, 1_000, 300)], 500, 4);
    // What a turn leaves over counts in the next: rounded down in each, the ratio would be 1.
    expect(small! / large!).toBeCloseTo(512 / 300, 1);
  });

  test("what one job can't use the others get", () => {
    expect(plain(new DeficitRoundRobin().share([job("a", 9, 1), job("b", 1)], 8))).toEqual({ a: 1, b: 7 });
    expect(plain(new DeficitRoundRobin().share([job("a", 9, 0), job("b", 1)], 8))).toEqual({ b: 8 });
  });
});
