import { rm, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { readModel } from "../../src/blip/families/index.ts";
import { editJson, Folder } from "./checkpoints.ts";

test("absent fields have transformers' class defaults", async () => {
  await using folder = await Folder.make();
  await writeFile(folder.at("config.json"), '{"architectures": ["BlipForConditionalGeneration"]}');
  await writeFile(folder.at("preprocessor_config.json"), "{}");
  const { vision, positions, generation, preprocessing, tasks } = await readModel(folder.path);
  expect(tasks).toEqual(["caption"]);
  const sizes = { width: 768, hidden: 3072, layers: 12 };
  expect(vision).toEqual({ ...sizes, heads: 12, epsilon: 1e-5, size: 384, patch: 16, grid: 24 });
  expect(positions).toBe(512);
  const made = { vocabulary: 30524, start: 30522, end: 102, image: "beside", template: "{question}" };
  expect(generation).toEqual(made);
  // A grey of 128, in the units that CLIP's mean and deviation lead to.
  const grey = preprocessing.scale.map((scale, i) => 128 * scale + preprocessing.shift[i]!);
  expect(grey[0]).toBeCloseTo((128 / 255 - 0.48145466) / 0.26862954, 12);
  expect(grey[2]).toBeCloseTo((128 / 255 - 0.40821073) / 0.27577711, 12);
});

test("normalisation and rescaling can be switched off, and the size can be one number", async () => {
  await using folder = await Folder.withCheckpoint("pixels-beyond-the-last-patch");
  await editJson(folder.at("checkpoint", "preprocessor_config.json"), (config) => {
    Object.assign(config, { do_normalize: false, do_rescale: false, size: 50 });
  });
  const { preprocessing } = await readModel(folder.at("checkpoint"));
  expect(preprocessing.scale).toEqual([1, 1, 1]);
  expect(preprocessing.shift.map(Math.abs)).toEqual([0, 0, 0]);
});

test("the image processor may be in processor_config.json, as transformers 5 writes it", async () => {
  await using folder = await Folder.withCheckpoint("pixels-beyond-the-last-patch");
  const write = (image_processor?: object) =>
    writeFile(folder.at("checkpoint", "processor_config.json"), JSON.stringify({ image_processor }));
  await write({ size: { height: 50, width: 50 }, rescale_factor: 0.5, image_mean: [0, 0, 0], image_std: [1, 1, 2] });
  expect((await readModel(folder.at("checkpoint"))).preprocessing.scale).toEqual([0.5, 0.5, 0.25]);
  await write({ size: 51 });
  const invalid = {
    code: "MODEL_INVALID",
    message: expect.stringContaining("processor_config.json: image_processor: size"),
  };
  await expect(readModel(folder.at("checkpoint"))).rejects.toMatchObject(invalid);
  await write();
  expect((await readModel(folder.at("checkpoint"))).preprocessing.scale[0]).toBeCloseTo(1 / 255 / 0.26862954, 6);
});

// biome-ignore lint/suspicious/noExplicitAny: JSON of any shape
type Edit = (config: any) => void;
const CONFIG = "config.json";
const PREPROCESSOR = "preprocessor_config.json";
const cases: [what: string, file: string, edit: Edit, code: string, message: RegExp][] = [
  ["no architecture", CONFIG, (c) => delete c.architectures, "MODEL_INVALID", /architectures/],
  [
    "an unknown architecture",
    CONFIG,
    (c) => (c.architectures = ["Git"]),
    "MODEL_UNSUPPORTED",
    /Git is not known; supported: Blip/,
  ],
  [
    "a width in words",
    CONFIG,
    (c) => (c.text_config.hidden_size = "wide"),
    "MODEL_INVALID",
    /text_config\.hidden_size/,
  ],
  [
    "no layers",
    CONFIG,
    (c) => (c.vision_config.num_hidden_layers = 0),
    "MODEL_INVALID",
    /vision_config\.num_hidden_layers/,
  ],
  [
    "heads that do not divide",
    CONFIG,
    (c) => (c.text_config.num_attention_heads = 5),
    "MODEL_INVALID",
    /text_config: hidden_size 36 .* 5/,
  ],
  [
    "another activation",
    CONFIG,
    (c) => (c.vision_config.hidden_act = "quick_gelu"),
    "MODEL_UNSUPPORTED",
    /vision_config\.hidden_act is quick_gelu/,
  ],
  ["no end token", CONFIG, (c) => (c.text_config.sep_token_id = null), "MODEL_INVALID", /text_config\.sep_token_id/],
  [
    "a start token beyond the vocabulary",
    CONFIG,
    (c) => (c.text_config.bos_token_id = 166),
    "MODEL_INVALID",
    /bos_token_id is 166/,
  ],
  [
    "a patch larger than the image",
    CONFIG,
    (c) => (c.vision_config.patch_size = 51),
    "MODEL_INVALID",
    /patch_size is 51/,
  ],
  [
    "another image size",
    PREPROCESSOR,
    (c) => (c.size = { height: 50, width: 48 }),
    "MODEL_INVALID",
    /size is 48 x 50, .* is 50/,
  ],
  ["two channels", PREPROCESSOR, (c) => c.image_mean.pop(), "MODEL_INVALID", /image_mean/],
  ["a deviation of zero", PREPROCESSOR, (c) => (c.image_std[1] = 0), "MODEL_INVALID", /image_std\.1/],
  ["another resampling", PREPROCESSOR, (c) => (c.resample = 2), "MODEL_UNSUPPORTED", /resample is 2/],
];

test.each(cases)("%s is refused, naming file and field", async (_, file, edit, code, message) => {
  await using folder = await Folder.withCheckpoint("pixels-beyond-the-last-patch");
  const path = folder.at("checkpoint", file);
  await editJson(path, edit);
  const error = await readModel(folder.at("checkpoint")).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
  expect((error as Error).message).toContain(path);
});

test.each([CONFIG, PREPROCESSOR])("%s missing or not JSON is MODEL_INVALID", async (name) => {
  await using folder = await Folder.withCheckpoint("pixels-beyond-the-last-patch");
  const path = folder.at("checkpoint", name);
  const invalid = (message: string) => ({ code: "MODEL_INVALID", message: expect.stringContaining(message) });
  await writeFile(path, '{"architectures": [');
  await expect(readModel(folder.at("checkpoint"))).rejects.toMatchObject(invalid(`${path} is not JSON`));
  await rm(path);
  await expect(readModel(folder.at("checkpoint"))).rejects.toMatchObject(invalid(`${path} is missing`));
});
