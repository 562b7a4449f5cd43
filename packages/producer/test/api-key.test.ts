/** API keys: what can be asked for, and what becomes of them. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileStore } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createKey, type NewKey, readKey, revokeKey } from "../src/keys/api-key.ts";
import { KeyRing } from "../src/keys/key-ring.ts";

let folder: string;
let state: FileStore;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-keys-"));
  state = new FileStore(folder);
});
afterAll(() => rm(folder, { recursive: true }));

const team: NewKey = { name: "team", scope: "submit", read: ["s3://in/team"], write: ["s3://out/team/"] };

test.each<[Partial<NewKey>, RegExp]>([
  [{ scope: "admin" }, /--read and --write: an admin key/],
  [{ scope: "read" }, /--read is for keys that submit/],
  [{ scope: "read", read: [], write: [] }, /--write: a key of the scope read needs a prefix/],
  [{ read: [] }, /--read: a key that submits needs a prefix/],
  [{ write: [] }, /--write/],
  [{ write: ["ftp://a/"] }, /scheme ftp/],
])("%j is refused, and makes no key", async (change, message) => {
  await expect(createKey({ ...team, ...change }, state)).rejects.toThrow(message);
  expect(await readdir(folder)).toEqual([]);
});

test("a key is stored as a hash, known by its ring, and not once it is revoked", async () => {
  const ring = new KeyRing(state);
  const { id, key } = await createKey(team, state);
  expect(key).toMatch(/^cf_[0-9a-f]{12}_[A-Za-z0-9_-]{43}$/);
  const stored = await readFile(join(folder, "keys", `${id}.json`), "utf8");
  expect(stored).not.toContain(key.slice(16));
  expect(await readKey(id, state)).toMatchObject({ read: ["s3://in/team/"], write: ["s3://out/team/"], revoked: null });
  expect(await ring.find(key)).toMatchObject({ id, name: "team" });
  const last = key.endsWith("A") ? "B" : "A";
  for (const wrong of [key.slice(0, -1) + last, key.replace(id, "000000000000"), `${key}A`, key.slice(3), ""]) {
    expect(await ring.find(wrong)).toBeNull();
  }
  await revokeKey(id, state);
  expect(await new KeyRing(state).find(key)).toBeNull();
  // Who revokes the last key does not open the door.
  expect(await new KeyRing(state).any()).toBe(true);
  await expect(revokeKey("0123456789ab", state)).rejects.toMatchObject({ code: "KEY_NOT_FOUND" });
  await expect(revokeKey("../jobs/x", state)).rejects.toMatchObject({ code: "KEY_NOT_FOUND" });
});
