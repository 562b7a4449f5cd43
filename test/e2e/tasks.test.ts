/** Every task from the command line to its rows, with the bundled models and what is known of the sample pictures. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ResultRow } from "@capfleet/shared/contract";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestFleet } from "../support/fleet.ts";
import { capfleet, DEMO, Sandbox } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";

interface Sample {
  id: string;
  image: string;
  alt: string;
  question: string;
  truth: { caption: string; alt_matches: boolean; answer: string };
}

let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
let samples: Sample[];
let fleet: TestFleet;
const stores = storesFromEnv({});
const images = join(DEMO, "images");
const manifest = join(DEMO, "samples.jsonl");
const parity = (name: string) => join(DEMO, "../parity/cases", name);
const OPT = parity("blip2-opt-new-layout");
const ITM = parity("blip2-itm-bin");

const jsonLines = async <T>(file: string): Promise<T[]> => {
  const lines = (await readFile(file, "utf8")).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as T);
};

beforeAll(async () => {
  sandbox = await Sandbox.create();
  env = sandbox.env();
  samples = await jsonLines<Sample>(manifest);
  // fp32, so that figures can be compared.
  const models = ["demo-caption", "demo-vqa", "demo-itm", OPT, ITM];
  fleet = await TestFleet.start(sandbox, models, ["--precision", "fp32"]);
});
afterAll(() => sandbox.cleanUp());

const rowsOf = (task: string, input: string, records: number, ...options: string[]): Promise<ResultRow[]> =>
  fleet.rowsOf(task, input, records, "--precision", "fp32", ...options);

async function writeManifest(name: string, lines: object[]): Promise<string> {
  await mkdir(sandbox.path("in"), { recursive: true });
  const file = sandbox.path(`in/${name}.jsonl`);
  await writeFile(file, lines.map((line) => JSON.stringify(line)).join("\n"));
  return file;
}

const pictured = (sample: Sample) => ({ id: sample.id, image: join(DEMO, sample.image) });
const only = (n: number) => ["--limit", String(n)];
const gray = "a clock on a gray background";

describe("caption", () => {
  test("beams: as transformers' with three, the best one first and as the caption", async () => {
    const rows = await rowsOf("caption", manifest, 24, "--num-beams", "3", "--num-captions", "3");
    const golden = await jsonLines<{ text: string }>(join(DEMO, "golden/golden-caption-beam3.jsonl"));
    expect(rows.map(({ caption }) => caption)).toEqual(golden.map(({ text }) => text));
    for (const { caption, score, captions } of rows) {
      expect(captions).toHaveLength(3);
      expect(captions![0]).toEqual({ text: caption, score });
      expect(new Set(captions!.map(({ text }) => text)).size).toBe(3);
    }
  });

  test("sampling: a seed draws the same captions whatever the shards and batches are, another seed others", async () => {
    const draw = ["--temperature", "3", "--num-captions", "4", "--max-new-tokens", "8"];
    const texts = async (...options: string[]) => {
      const rows = await rowsOf("caption", manifest, 24, ...draw, ...options);
      return rows.map(({ captions }) => captions!.map(({ text }) => text));
    };
    const first = await texts("--seed", "7", "--shard-size", "24");
    expect(first.map((captions) => captions.length)).toEqual(Array(24).fill(4));
    expect(first.some((captions) => new Set(captions).size > 1)).toBe(true);
    expect(await texts("--seed", "7", "--shard-size", "3")).toEqual(first);
    expect(await texts("--seed", "8", "--shard-size", "24")).not.toEqual(first);
  });

  test("a prompt, and the shortest and longest text", async () => {
    const lengths = ["--min-new-tokens", "5", "--max-new-tokens", "5"];
    const rows = await rowsOf("caption", images, 3, "--prompt", "three dogs", ...lengths, ...only(3));
    for (const { caption } of rows) expect(caption).toMatch(/^three dogs( \S+){5}$/);
  });

  test("a prompt that is longer than the model: the job fails at once, and says why", async () => {
    const prompt = Array(100).fill("dog").join(" ");
    await expect(rowsOf("caption", images, 24, "--prompt", prompt)).rejects.toThrow(/^failed: INVALID_OPTION: /);
  });
});

describe("vqa", () => {
  test("a question column: transformers' answers", async () => {
    const rows = await rowsOf("vqa", manifest, 24, "--question-column", "question");
    const golden = await jsonLines<{ text: string }>(join(DEMO, "golden/golden-vqa.jsonl"));
    expect(rows.map(({ answer }) => answer)).toEqual(golden.map(({ text }) => text));
    expect(rows.filter(({ answer }, i) => answer === samples[i]!.truth.answer)).toHaveLength(23);
    for (const { score } of rows) expect(score).toBeLessThanOrEqual(0);
  });

  test("several questions for every image: each answered as on its own", async () => {
    const asked = ["what color is the background?", "how many objects are there?", "is there a clock?"];
    const together = await rowsOf("vqa", images, 24, ...asked.flatMap((question) => ["--question", question]));
    for (const [i, question] of asked.entries()) {
      const alone = await rowsOf("vqa", images, 24, "--question", question);
      for (const [n, { answers }] of together.entries()) {
        const { answer, score } = alone[n]!;
        expect(answers![i]).toEqual({ question, answer, score: expect.closeTo(score!, 4) });
      }
    }
    const colors = together.map(({ answers }) => answers![0]!.answer);
    const right = samples.filter(({ truth }, i) => truth.caption.includes(`${colors[i]} background`));
    expect(right.length).toBeGreaterThanOrEqual(23);
  });

  test("one question here, a list there, in the same column", async () => {
    const lines = samples.slice(0, 2).map((sample, i) => ({
      ...pictured(sample),
      ask: i === 0 ? sample.question : [sample.question, "is there a clock?"],
    }));
    const [one, two] = await rowsOf("vqa", await writeManifest("lists", lines), 2, "--question-column", "ask");
    expect(one!.answer).toBe(samples[0]!.truth.answer);
    expect(two!.answers!.map(({ question, answer }) => [question, answer])).toEqual([
      [samples[1]!.question, samples[1]!.truth.answer],
      ["is there a clock?", "no"],
    ]);
  });

  test("a closed list: only these answers, the likeliest of them", async () => {
    const question = ["--question", "is there a clock?"];
    const rows = await rowsOf("vqa", images, 24, ...question, "--answers", "no,yes");
    expect(rows.map(({ answer }) => answer)).toEqual(
      samples.map(({ truth }) => (truth.caption.includes("clock") ? "yes" : "no")),
    );
    const file = sandbox.path("colors.txt");
    await writeFile(file, "a purple bus\nyellow\ngray\n");
    const open = ["--question", "what color is the background?", "--answers", file];
    const [first] = await rowsOf("vqa", images, 1, ...open, ...only(1));
    expect(first!.answer).toBe("gray");
  });
});

describe("itm", () => {
  test("a text column: transformers' probabilities, and the verdict is right", async () => {
    const rows = await rowsOf("itm", manifest, 24, "--text-column", "alt");
    const golden = await jsonLines<{ score: number }>(join(DEMO, "golden/golden-itm.jsonl"));
    for (const [i, { itm }] of rows.entries()) {
      // The pictures are decoded by another decoder than in the golden file's run.
      expect(itm).toBeCloseTo(golden[i]!.score, 2);
      expect(itm! > 0.5).toBe(samples[i]!.truth.alt_matches);
    }
  });

  test("many texts for each image, more than a batch holds: the right one wins", async () => {
    const texts = [...new Set(samples.map(({ truth }) => truth.caption))];
    const repeated = Array.from({ length: 4 }, () => texts).flat();
    const rows = await rowsOf("itm", manifest, 24, ...repeated.flatMap((text) => ["--text", text]));
    for (const [i, { scores }] of rows.entries()) {
      expect(scores).toHaveLength(repeated.length);
      expect(repeated[scores!.indexOf(Math.max(...scores!))]).toBe(samples[i]!.truth.caption);
    }
  });

  test("a text that is too long is cut, and its row says which", async () => {
    const long = `${gray} ${"and a clock ".repeat(200)}`;
    const [first, second] = samples;
    const lines = [
      { ...pictured(first!), text: gray },
      { ...pictured(second!), text: [gray, long] },
    ];
    const rows = await rowsOf("itm", await writeManifest("long", lines), 2, "--text-column", "text");
    expect(rows[0]!.warnings).toBeUndefined();
    expect(rows[1]!.warnings).toEqual(["text 2 of 2 is too long for the model: its end was cut off"]);
    expect(rows[1]!.scores).toHaveLength(2);
  });
});

describe("itc and embed", () => {
  const texts = [gray, "two sunflowers on a yellow background"];
  const asked = texts.flatMap((text) => ["--text", text]);
  const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

  test("similarity is the product of the image's and the text's vectors, which have length 1", async () => {
    const similar = await rowsOf("itc", manifest, 24, ...asked);
    const pictures = await rowsOf("embed", manifest, 24);
    const file = await writeManifest(
      "texts",
      texts.map((text) => ({ text })),
    );
    const words = await rowsOf("embed", file, 2, "--text-column", "text");
    expect(words.map(({ id, image }) => [id, image])).toEqual([
      ["line 1", null],
      ["line 2", null],
    ]);
    for (const { embedding } of [...pictures, ...words]) {
      // float32 rounds each of the values to seven digits.
      expect(dot(embedding!, embedding!)).toBeCloseTo(1, 5);
    }
    for (const [i, { scores }] of similar.entries()) {
      for (const [j, score] of scores!.entries()) {
        expect(score).toBeCloseTo(dot(pictures[i]!.embedding!, words[j]!.embedding!), 4);
      }
    }
    expect(similar[0]!.scores![0]).toBeGreaterThan(similar[0]!.scores![1]!);
  });

  test("itc of a column: transformers' similarities", async () => {
    const rows = await rowsOf("itc", manifest, 24, "--text-column", "alt");
    const golden = await jsonLines<{ score: number }>(join(DEMO, "golden/golden-itc.jsonl"));
    for (const [i, { itc }] of rows.entries()) expect(itc).toBeCloseTo(golden[i]!.score, 2);
  });

  test("a list of texts has a vector each; a line without text after the first thousand is a row's error", async () => {
    const lines: object[] = Array.from({ length: 1_000 }, (_, n) => ({ text: texts[n % 2] }));
    lines.push({ id: "bare" }, { id: "both", text: texts });
    const rows = await rowsOf("embed", await writeManifest("many", lines), 1_002, "--text-column", "text");
    expect(rows[1_000]).toMatchObject({ id: "bare", image: null, error: { code: "TEXT_MISSING" } });
    const both = rows[1_001]!.embeddings!;
    for (const [i, vector] of both.entries()) {
      for (const [j, value] of vector.entries()) expect(value).toBeCloseTo(rows[i]!.embedding![j]!, 4);
    }
  });
});

test("the precision that suits a CPU, where none is asked for, gives the right answers too", async () => {
  const out = sandbox.path("default");
  const { code, stdout } = await capfleet(env, "run", "vqa", manifest, "--out", out, "--question-column", "question");
  expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringContaining("demo-vqa (int8, engine ") });
  const { rows, summary } = await expectWhole(stores.at(`${out}/`), 24);
  expect(summary).toMatchObject({ task: "vqa", provenance: { engines: [{ precision: "int8", model: "demo-vqa" }] } });
  expect(rows.filter(({ answer }, i) => answer === samples[i]!.truth.answer).length).toBeGreaterThanOrEqual(23);
});

test("jobs of several tasks and models on one worker, all at once", async () => {
  const [answers, matches, vectors] = await Promise.all([
    rowsOf("vqa", manifest, 24, "--question-column", "question"),
    rowsOf("itm", manifest, 24, "--text-column", "alt"),
    rowsOf("embed", manifest, 24),
  ]);
  expect(answers.filter(({ answer }, i) => answer === samples[i]!.truth.answer)).toHaveLength(23);
  for (const [i, { itm }] of matches.entries()) expect(itm! > 0.5).toBe(samples[i]!.truth.alt_matches);
  expect(new Set(vectors.map(({ embedding }) => embedding!.length)).size).toBe(1);
});

/**
 * The checkpoints have random weights: what they say means nothing, but it is what transformers makes them say of these
 * pictures (../parity). The golden files' pixels are PIL's, which ours meet to a grey level here and there; that moves
 * log-probabilities by up to 0.04, so only texts are compared all of whose words were decided by more.
 */
describe("BLIP-2", () => {
  const SURE = 0.06;
  interface Golden {
    id: string;
    task: { name: string; decoding: object };
    texts: string[];
    answers?: { text: string }[];
    captions?: { text: string }[];
    margins: number[];
  }

  async function golden(task: string): Promise<Golden[]> {
    const rows = await jsonLines<Golden>(join(OPT, "golden.jsonl"));
    return rows.filter((row) => isPlain(row, task));
  }
  const isPlain = ({ task: { name, decoding, ...rest } }: Golden, task: string) =>
    name === task && Object.keys(decoding).length === 0 && Object.keys(rest).every((key) => key === "questions");

  test("captions, and answers to several questions of different lengths", async () => {
    const [captions, asked] = [await golden("caption"), await golden("vqa")];
    const pictures = captions.map(({ id }) => samples.find((sample) => sample.id === id)!);
    const records = pictures.map((sample, i) => ({ ...pictured(sample), question: asked[i]!.texts }));
    const model = ["--model", OPT];
    const file = await writeManifest("blip2", records);
    const expectSame = (texts: (string | undefined)[], known: { text: string }[], margins: number[]) => {
      expect(texts.length).toBe(known.length);
      const sure = [...margins.keys()].filter((i) => margins[i]! > SURE);
      expect(sure.length).toBeGreaterThan(known.length / 3);
      expect(sure.map((i) => texts[i])).toEqual(sure.map((i) => known[i]!.text));
    };
    const captioned = await rowsOf("caption", file, pictures.length, ...model);
    const captionMargins = captions.flatMap(({ margins }) => margins);
    expectSame(
      captioned.map(({ caption }) => caption),
      captions.flatMap(({ captions }) => captions!),
      captionMargins,
    );

    const rows = await rowsOf("vqa", file, pictures.length, ...model, "--question-column", "question");
    const said = rows.flatMap(({ answers }) => answers!.map(({ answer }) => answer));
    expectSame(
      said,
      asked.flatMap(({ answers }) => answers!),
      asked.flatMap(({ margins }) => margins),
    );
  });

  test("the template is the user's to choose", async () => {
    const ask = ["--model", OPT, "--question", "how many dogs are there?"];
    const answers = async (...options: string[]) =>
      (await rowsOf("vqa", images, 4, ...only(4), ...ask, ...options)).map(({ answer }) => answer);
    const own = await answers();
    expect(await answers("--template", "Question: {question} Answer:")).toEqual(own);
    expect(await answers("--template", "{question}")).not.toEqual(own);
  });

  test("4 bits: an answer for each record; BLIP has none", async () => {
    const ask = ["--question", "how many dogs are there?", "--precision", "int4"];
    const model = parity("blip2-opt-float16-sharded");
    const out = sandbox.path("int4");
    const done = await capfleet(env, "run", "vqa", images, "--out", out, ...only(2), "--model", model, ...ask);
    expect(done).toMatchObject({ code: 0 });
    const { rows } = await expectWhole(stores.at(`${out}/`), 2);
    expect(rows.every(({ answer, score }) => typeof answer === "string" && score! < 0)).toBe(true);
    await expect(fleet.rowsOf("vqa", images, 2, ...ask)).rejects.toMatchObject({
      code: "INVALID_OPTION",
      message: expect.stringMatching(/^demo-vqa can't run as int4/),
    });
  });

  test("an image has as many vectors as the model has queries; a text has one", async () => {
    const model = ["--model", ITM];
    const [row] = await rowsOf("embed", images, 1, ...only(1), ...model);
    expect(row!.embedding).toBeUndefined();
    expect(row!.embeddings!.map((vector) => Math.hypot(...vector))).toEqual(Array(9).fill(expect.closeTo(1, 5)));
    const pair = { ...pictured(samples[0]!), text: "a clock" };
    const [text] = await rowsOf("embed", await writeManifest("pair", [pair]), 1, "--text-column", "text", ...model);
    const [scored] = await rowsOf("itc", await writeManifest("pair", [pair]), 1, "--text-column", "text", ...model);
    const picture = (await rowsOf("embed", await writeManifest("pair", [pair]), 1, ...model))[0]!.embeddings!;
    const cosines = picture.map((vector) => vector.reduce((sum, x, i) => sum + x * text!.embedding![i]!, 0));
    expect(scored!.itc).toBeCloseTo(Math.max(...cosines), 5);
  });
});
