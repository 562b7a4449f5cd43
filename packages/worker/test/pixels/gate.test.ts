import { expect, test } from "vitest";
import { alone, together } from "../../src/pixels/gate.ts";

test("what runs alone waits for what runs, and keeps back what comes later", async () => {
  const order: string[] = [];
  const [first, second, single, later] = [step("first"), step("second"), step("alone"), step("later")];

  function step(name: string) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const work = async () => {
      order.push(`${name} starts`);
      await promise;
      order.push(`${name} ends`);
    };
    return { work, end: resolve };
  }

  const all = [together(first.work), together(second.work), alone(single.work), together(later.work)];
  first.end();
  await all[0];
  single.end(); // As soon as it starts.
  later.end();
  second.end();
  await Promise.all(all);
  expect(order).toEqual([
    ...["first starts", "second starts", "first ends", "second ends"],
    ...["alone starts", "alone ends", "later starts", "later ends"],
  ]);
});

test("what fails alone fails its caller only", async () => {
  const failing = alone(() => Promise.reject(new Error("no")));
  const next = alone(() => Promise.resolve("next"));
  const other = together(() => Promise.resolve("other"));
  await expect(failing).rejects.toThrow("no");
  expect(await Promise.all([next, other])).toEqual(["next", "other"]);
});

test("what fails among others lets what waits to run alone begin", async () => {
  const failing = together(() => Promise.reject(new Error("no")));
  const next = alone(() => Promise.resolve("next"));
  await expect(failing).rejects.toThrow("no");
  expect(await next).toBe("next");
});
