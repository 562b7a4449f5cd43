import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig } from "@capfleet/shared/config";
import { decodingSchema, type TaskSpec } from "@capfleet/shared/contract";
import { findLocalModel, RUNTIME_VERSION } from "@capfleet/shared/models";
import ortPackage from "onnxruntime-node/package.json" with { type: "json" };
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { ensureEngine } from "../../src/blip/index.ts";
import { EngineHost } from "../../src/engine/host.ts";

const caption = (maxNewTokens: number): TaskSpec => {
  return { name: "caption", decoding: decodingSchema.parse({ maxNewTokens }), captions: 1, prompt: null };
};

let folder: string;
let engine: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-host-"));
  engine = join(folder, "engine");
  const config = readConfig({ CAPFLEET_CACHE: folder });
  const { ref, folder: checkpoint } = await findLocalModel("demo-caption", "fp32", config);
  await ensureEngine(checkpoint!, ref, engine);
});
afterAll(() => rm(folder, { recursive: true }));
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

test("the runtime that digests name is the one that is installed", () => {
  expect(ortPackage.version).toBe(RUNTIME_VERSION);
});

describe("the engine thread", () => {
  test("keeps the main loop free while it runs, and answers each request with its own outputs", async () => {
    const host = await EngineHost.start({ folders: [engine], threads: 1, device: "cpu" });
    const bytes = host.infos[0]!.image.width * host.infos[0]!.image.height * 3;
    const slab = new SharedArrayBuffer(8 * bytes);
    for (let i = 0; i < 8; i++) new Uint8Array(slab, i * bytes, bytes).fill(31 * i);
    const run = async (first: number, count: number) => {
      const items = Array.from({ length: count }, (_, i) => ({ id: String(first + i), texts: [] }));
      const outputs = await host.label({ engine: 0, slab, first, items, task: caption(20), urgent: false });
      return outputs.map((output) => output.task === "caption" && output.captions[0]!.ids);
    };

    let turns = 0;
    let running = true;
    const turn = () => {
      turns += 1;
      if (running) setTimeout(turn, 1);
    };
    turn();
    const [all, tail] = await Promise.all([run(0, 8), run(5, 3)]);
    running = false;
    // On this thread each run would have held up the loop from its start to its end.
    expect(turns).toBeGreaterThan(5);
    expect(all).toHaveLength(8);
    expect(tail).toEqual(all.slice(5));
    await host.close();
  });

  test("runs an urgent batch next, ahead of those that it was sent before", async () => {
    const host = await EngineHost.start({ folders: [engine], threads: 1, device: "cpu" });
    const { width, height } = host.infos[0]!.image;
    const slab = new SharedArrayBuffer(width * height * 3);
    const order: string[] = [];
    const run = async (id: string, urgent: boolean) => {
      await host.label({ engine: 0, slab, first: 0, items: [{ id, texts: [] }], task: caption(5), urgent });
      order.push(id);
    };
    await Promise.all([run("1", false), run("2", false), run("3", false), run("urgent", true)]);
    expect(order).toEqual(["1", "urgent", "2", "3"]);
    await host.close();
  });

  test("is said to hang when batch after batch is not answered, and not while they are", async () => {
    vi.stubEnv("CAPFLEET_FAULTS", "worker.infer=hang:stuck");
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const host = await EngineHost.start({ folders: [engine], threads: 1, device: "cpu" });
    const { width, height } = host.infos[0]!.image;
    const slab = new SharedArrayBuffer(width * height * 3);
    const run = (id: string) =>
      host.label({ engine: 0, slab, first: 0, items: [{ id, texts: [] }], task: caption(2), urgent: false });
    let hangs = false;
    const hung = host.hangs(4_000).then(() => {
      hangs = true;
    });
    for (let n = 0; n < 10; n++) {
      const running = run(String(n));
      await vi.advanceTimersByTimeAsync(1_000);
      await running;
    }
    // Nor while there is nothing to do.
    await vi.advanceTimersByTimeAsync(10_000);
    expect(hangs).toBe(false);
    const never = run("stuck");
    await vi.advanceTimersByTimeAsync(3_000);
    expect(hangs).toBe(false);
    await vi.advanceTimersByTimeAsync(3_000);
    await hung;
    const ended = expect(never).rejects.toMatchObject({ code: "ENGINE_FAILED" });
    await host.close();
    await ended;
  });

  test("an engine that can't be loaded is an error at the start", async () => {
    const starting = EngineHost.start({ folders: [join(folder, "nothing")], threads: 1, device: "cpu" });
    await expect(starting).rejects.toMatchObject({ code: "ENGINE_FAILED" });
  });

  test("what the engine refuses comes back with its code, and the thread goes on", async () => {
    const host = await EngineHost.start({ folders: [engine], threads: 1, device: "cpu" });
    const { width, height } = host.infos[0]!.image;
    const slab = new SharedArrayBuffer(width * height * 3);
    const items = [{ id: "1", texts: [] }];
    const run = (tokens: number) =>
      host.label({ engine: 0, slab, first: 0, items, task: caption(tokens), urgent: false });
    await expect(run(500)).rejects.toMatchObject({ code: "INVALID_OPTION" });
    expect(await run(5)).toHaveLength(1);
    await host.close();
  });
});
