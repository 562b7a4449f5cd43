/** Images out of tars. Whole objects are in shard.test.ts and the end-to-end tests. */
import { mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Budget } from "../../src/datasets/budget.ts";
import { fetchImage } from "../../src/datasets/fetch.ts";

let folder: string;
let image: string;
let etag: string;
const stores = storesFromEnv({});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-fetch-"));
  await writeFile(join(folder, "a.tar"), "0123456789");
  image = pathToFileURL(join(folder, "a.tar")).href;
  etag = (await stores.at(folder).stat("a.tar"))!.etag;
});
afterEach(() => rm(folder, { recursive: true }));

const fetch = (offset: number, size: number, maxBytes = 5) =>
  fetchImage(
    { image, member: { name: "x.jpg", offset, size, etag } },
    stores,
    maxBytes,
    new Budget(5),
    new AbortController().signal,
  );

test("exactly the member's bytes; limits and budget are for them and not for the tar", async () => {
  const { bytes, release } = await fetch(3, 5);
  expect(bytes.toString()).toBe("34567");
  release();
  await expect(fetch(3, 6)).rejects.toMatchObject({
    code: "IMAGE_TOO_LARGE",
    message: expect.stringMatching(/^x.jpg in file:/),
  });
  await expect(fetch(3, 0)).rejects.toMatchObject({
    code: "IMAGE_EMPTY",
    message: expect.stringContaining("x.jpg in"),
  });
});

test("a tar that was replaced or is gone is the row's error, never other bytes", async () => {
  await utimes(join(folder, "a.tar"), 1, 1);
  await expect(fetch(3, 5)).rejects.toMatchObject({ code: "IMAGE_CHANGED", scope: "row" });
  await rm(join(folder, "a.tar"));
  await expect(fetch(3, 5)).rejects.toMatchObject({ code: "IMAGE_NOT_FOUND", scope: "row" });
});
