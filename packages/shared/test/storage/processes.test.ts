import { afterAll, describe, expect, test } from "vitest";
import { backends } from "./backends.ts";
import { startWriter } from "./processes.ts";

const PROCESSES = 4;

describe.each(backends())("$name", (backend) => {
  afterAll(() => backend.close());

  describe.skipIf(backend.isMissing)("several processes at once", () => {
    test("putIfAbsent: each key has one writer, and it is the one that was told so", async () => {
      const { store, config } = await backend.open();
      const lines = (await run("put-if-absent", store.uri, config)).flat();
      expect(new Set(lines.map((line) => line.split(" ")[0])).size).toBe(25);
      expect(lines).toHaveLength(25);
      for (const line of lines) {
        const [key, pid] = line.split(" ");
        expect((await store.read(key!)).bytes.toString()).toBe(pid);
      }
    });

    test("putIfMatch: no increment is lost", async () => {
      const { store, config } = await backend.open();
      await store.put("counter", "0");
      await run("increment", store.uri, config);
      // 4 × 25 increments, kept to one digit.
      expect((await store.read("counter")).bytes.toString()).toBe("0");
      for await (const { key } of store.list()) expect(key).toBe("counter");
    });
  });
});

async function run(mode: "put-if-absent" | "increment", uri: string, config: string): Promise<string[][]> {
  const writers = await Promise.all(Array.from({ length: PROCESSES }, () => startWriter(mode, uri, config)));
  const signals = await Promise.all(writers.map((writer) => writer.finish()));
  expect(signals).toEqual(Array(PROCESSES).fill(null));
  return writers.map((writer) => writer.lines());
}
