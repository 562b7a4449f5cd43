import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { PRECISIONS } from "../../src/contract/index.ts";
import { checkpointAbilities } from "../../src/models/checkpoint.ts";
import { checkpointFiles } from "../../src/models/files.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-checkpoint-"));
});
afterEach(() => rm(folder, { recursive: true }));

async function abilitiesOf(config: object) {
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  return checkpointAbilities(folder);
}
const blip2 = (config: object) => abilitiesOf({ architectures: ["Blip2ForConditionalGeneration"], ...config });
const small = PRECISIONS.filter((precision) => precision !== "int4");

describe("what a checkpoint can do", () => {
  test.each([
    ["BlipForConditionalGeneration", ["caption"]],
    ["BlipForQuestionAnswering", ["vqa"]],
    ["BlipForImageTextRetrieval", ["itm", "itc", "embed"]],
    ["Blip2ForImageTextRetrieval", ["itm", "itc", "embed"]],
  ])("%s: %j, in all precisions but that of large language models", async (architecture, tasks) => {
    expect(await abilitiesOf({ architectures: [architecture] })).toMatchObject({ tasks, precisions: small });
  });

  test("BLIP makes as many tokens as its texts have positions", async () => {
    const blip = { architectures: ["BlipForQuestionAnswering"] };
    expect(await abilitiesOf(blip)).toMatchObject({ maxNewTokens: 512 });
    const text_config = { max_position_embeddings: 64 };
    expect(await abilitiesOf({ ...blip, text_config })).toMatchObject({ maxNewTokens: 64 });
  });

  test("BLIP-2 with OPT has several tasks, all precisions, and OPT's positions but for the image's", async () => {
    const abilities = { tasks: ["caption", "vqa"], precisions: PRECISIONS };
    expect(await blip2({})).toEqual({ ...abilities, maxNewTokens: 2048 - 32 });
    const text_config = { model_type: "opt", max_position_embeddings: 100 };
    expect(await blip2({ num_query_tokens: 7, text_config })).toEqual({ ...abilities, maxNewTokens: 93 });
  });

  test("BLIP-2 with another language model is not supported, and the message says which is", async () => {
    await expect(blip2({ text_config: { model_type: "t5" } })).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringMatching(/language model "t5" is not supported \(supported: opt\)/),
    });
  });

  test("a language model that has no place beside the image", async () => {
    const text_config = { max_position_embeddings: 32 };
    await expect(blip2({ text_config })).rejects.toMatchObject({
      code: "MODEL_INVALID",
      message: expect.stringMatching(/max_position_embeddings is 32, of which the image takes 32/),
    });
    expect(await blip2({ text_config: { max_position_embeddings: 33 } })).toMatchObject({ maxNewTokens: 1 });
  });

  test("another architecture is not supported, and the message lists those that are", async () => {
    await expect(abilitiesOf({ architectures: ["InstructBlipForConditionalGeneration"] })).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringMatching(/InstructBlip.* not supported .*Blip2ForConditionalGeneration/),
    });
  });

  test.each([
    [{}, "architectures"],
    [{ architectures: ["BlipForQuestionAnswering"], text_config: { max_position_embeddings: "many" } }, "text_config"],
    [{ architectures: ["Blip2ForConditionalGeneration"], num_query_tokens: 0 }, "num_query_tokens"],
  ])("the config %j is none", async (config, field) => {
    await expect(abilitiesOf(config)).rejects.toMatchObject({
      code: "MODEL_INVALID",
      message: expect.stringContaining(field),
    });
  });
});

describe("of what a BLIP-2 repository has, a checkpoint is", () => {
  const settings = [
    ...["added_tokens.json", "config.json", "generation_config.json", "merges.txt", "preprocessor_config.json"],
    ...["processor_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"],
  ];
  const rest = [".gitattributes", "README.md", "chat_template.jinja", "chat_template.json", "onnx/config.json"];
  const safetensors = [1, 2].map((n) => `model-0000${n}-of-00002.safetensors`);
  const pickles = [1, 2].map((n) => `pytorch_model-0000${n}-of-00002.bin`);
  const repository = [
    ...settings,
    ...rest,
    ...[...safetensors, "model.safetensors.index.json"],
    ...[...pickles, "pytorch_model.bin.index.json"],
  ];

  test("settings, tokenizer, and the shards of one form of weights", () => {
    expect(checkpointFiles(repository)).toEqual(
      [...settings, ...safetensors, "model.safetensors.index.json"].toSorted(),
    );
  });

  test("the pickled shards where there are no others", () => {
    const older = repository.filter((name) => !name.includes("safetensors"));
    expect(checkpointFiles(older)).toEqual([...settings, ...pickles, "pytorch_model.bin.index.json"].toSorted());
  });
});
