import { mkdir, readdir } from "node:fs/promises";
import { findLocalModel } from "@capfleet/shared/models";
import { Stores } from "@capfleet/shared/storage";
import { afterEach, beforeEach, expect, test } from "vitest";
import { mount, unmount, whyNoSmallDisk } from "../../../shared/test/models/small-disk.ts";
import { prepareEngine } from "../../src/models/prepare.ts";
import { World } from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await World.create();
});
afterEach(() => world.end());

const noDisk = whyNoSmallDisk();
const title = `compiling on a full disk${noDisk === null ? "" : ` (skipped: ${noDisk})`}`;
test.skipIf(noDisk !== null)(title, async () => {
  const folder = world.path("disk");
  await mkdir(folder);
  expect(mount(folder, 2_000_000)).toBe(0);
  try {
    const model = await findLocalModel("demo-caption", "fp32", world.config("disk"));
    const preparing = prepareEngine(model, world.config("disk"), new Stores(), {});
    await expect(preparing).rejects.toMatchObject({ code: "DISK_FULL", message: expect.stringContaining(folder) });
    expect(await readdir(world.path("disk/engines"))).toEqual([]);
  } finally {
    unmount(folder);
  }
});
