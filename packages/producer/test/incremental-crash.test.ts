/** A command that dies at any of its writes, before or after it, and is then given again. */
import { layout } from "@capfleet/shared/contract";
import { afterAll, expect, test } from "vitest";
import { backends } from "../../shared/test/storage/backends.ts";
import { listRuns, readRoot } from "../src/incremental/root.ts";
import { World, watched } from "./incremental-world.ts";

const backend = backends().find(({ name }) => name === "files")!;
afterAll(() => backend.close());

const FIRST = { "a.jpg": "a", "b.jpg": "b", "c.jpg": "c" };
/** At least: claim, job, state, shard, plan, results, index, dataset, rollup, summary, _SUCCESS, state, release. */
const WRITES = 13;

/** Dies at the write of that number. Null where it does not come to so many. */
async function crash(world: World, at: number, when: "before" | "after"): Promise<true | null> {
  const { stores } = watched(world.stores, (write, now) => write === at && now === when);
  return world.run({}, stores).then(
    () => null,
    (thrown: Error) => {
      expect(thrown.message).toContain("killed");
      return true;
    },
  );
}

async function expectGood(world: World, runs: number, view: [string, string][]): Promise<void> {
  expect(await world.view()).toEqual(view);
  expect(await world.run()).toBeNull();
  const names = await listRuns(world.root);
  expect(names).toHaveLength(runs);
  for (const name of names) {
    const out = world.stores.at(world.root.uriOf(`runs/${name}/`));
    expect(await out.stat(layout.success)).not.toBeNull();
  }
  const states = await Array.fromAsync(world.states().all());
  expect(states).toHaveLength(runs);
  for (const { id } of states) expect(await world.states().find(id)).toMatchObject({ ended: "finished" });
}

test.each(["before", "after"] as const)("the first run, killed %s each write", async (when) => {
  for (let at = 1; ; at++) {
    const world = await World.create(backend, FIRST);
    if (!(await crash(world, at, when))) {
      expect(at).toBeGreaterThanOrEqual(WRITES);
      break;
    }
    await world.run();
    await expectGood(world, 1, Object.entries(FIRST));
  }
});

test.each(["before", "after"] as const)("a further run, killed %s each write", async (when) => {
  for (let at = 1; ; at++) {
    const world = await World.create(backend, FIRST);
    await world.run();
    await world.source.put("b.jpg", "another b");
    await world.source.put("d.jpg", "d");
    await world.source.delete("a.jpg");
    if (!(await crash(world, at, when))) {
      expect(at).toBeGreaterThanOrEqual(WRITES);
      break;
    }
    // Until the moment in which the dataset is turned it is the old one.
    const before = await world.view();
    const now: [string, string][] = [
      ["b.jpg", "another b"],
      ["c.jpg", "c"],
      ["d.jpg", "d"],
    ];
    expect([JSON.stringify(Object.entries(FIRST)), JSON.stringify(now)]).toContain(JSON.stringify(before));
    await world.run();
    await expectGood(world, 2, now);
    // What the dead have left goes with the next run.
    await world.source.put("e.jpg", "e");
    expect(await world.run()).toEqual(["e.jpg"]);
    expect(await world.indexes()).toHaveLength(2);
    expect((await readRoot(world.root))!.root.pending).toBeNull();
  }
});

test("another command takes over a claim that nobody has made a job of", async () => {
  const world = await World.create(backend, FIRST);
  await crash(world, 1, "after");
  const { pending } = (await readRoot(world.root))!.root;
  expect(await world.run({ prompt: "a picture of", name: "another" })).toEqual(Object.keys(FIRST));
  expect(await listRuns(world.root)).toEqual([pending!.run]);
});
