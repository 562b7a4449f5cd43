import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { checkpointDigest } from "../../src/models/checkpoint.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-digest-"));
  await write({ "config.json": "{}", "vocab.txt": "[PAD]" });
});
afterEach(() => rm(folder, { recursive: true }));

async function write(files: Record<string, string>): Promise<void> {
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
}
const remove = (name: string) => rm(join(folder, name));
const digest = () => checkpointDigest(folder, join(folder, "cache"));

test("only the weights that are read decide: copies in other forms change nothing", async () => {
  const forms: [string, string[]][] = [
    ["pytorch_model.bin.index.json", ["pytorch_model-00001-of-00001.bin"]],
    ["pytorch_model.bin", []],
    ["model.safetensors.index.json", ["model-00001-of-00001.safetensors"]],
    ["model.safetensors", []],
  ];
  const alone: string[] = [];
  for (const [known, shards] of forms) {
    for (const name of [...shards, known]) await write({ [name]: name });
    alone.push(await digest());
  }
  expect(new Set(alone).size).toBe(forms.length);
  // And back: without the forms that go before it, each has the digest that it had before they were there.
  const again = [await digest()];
  for (const [known] of forms.slice(1).reverse()) {
    await remove(known);
    again.unshift(await digest());
  }
  expect(again).toEqual(alone);
});

test.each([
  ["model.safetensors", "model.safetensors"],
  ["model.safetensors.index.json", "model.safetensors.index.json"],
  ["model.safetensors.index.json", "anything.safetensors"],
  ["pytorch_model.bin", "pytorch_model.bin"],
  ["pytorch_model.bin.index.json", "pytorch_model.bin.index.json"],
  ["pytorch_model.bin.index.json", "anything.bin"],
  ["model.safetensors", "vocab.txt"],
])("with %s, %s decides", async (known, name) => {
  await write({ [known]: "weights", [name]: "before" });
  const before = await digest();
  await write({ [name]: "afterwards" });
  expect(await digest()).not.toBe(before);
});

test.each([
  ["model.safetensors", "pytorch_model.bin"],
  ["model.safetensors", "model-00001-of-00002.safetensors"],
  ["model.safetensors.index.json", "pytorch_model.bin"],
  ["pytorch_model.bin", "pytorch_model.bin.index.json"],
  ["pytorch_model.bin", "optimizer.bin"],
  ["model.safetensors", "README.md"],
])("with %s, %s does not", async (known, name) => {
  await write({ [known]: "weights" });
  const before = await digest();
  await write({ [name]: "something" });
  expect(await digest()).toBe(before);
});
