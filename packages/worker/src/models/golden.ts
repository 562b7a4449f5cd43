/**
 * Golden files: what an engine should answer, a JSON object a line; docs/models.md describes the format. A row has an
 * image and what is expected of it: a caption, the answer to a question, or how well a text fits.
 */
import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import { CapfleetError, decodingSchema, QUESTION_SLOT, type TaskSpec, templateSchema } from "@capfleet/shared/contract";
import * as z from "zod";

/** One question to the engine, and the answer that it should give. */
export interface Expectation {
  /** Where it stands, for messages. */
  row: string;
  /** Path of the image. */
  image: string;
  task: TaskSpec;
  texts: string[];
  text?: string | undefined;
  /** Token ids, without start token and prompt, with the end token. */
  ids?: number[] | undefined;
  score?: number | undefined;
}

const generated = { ids: z.array(z.number().int()).optional(), score: z.number().optional() };
const decoding = decodingSchema.prefault({});
const rowSchema = z.union([
  z.strictObject({
    image: z.string(),
    caption: z.string(),
    prompt: z.string().min(1).optional(),
    decoding,
    ...generated,
  }),
  z.strictObject({
    image: z.string(),
    question: z.string().min(1),
    template: templateSchema.optional(),
    answer: z.string(),
    decoding,
    ...generated,
  }),
  z
    .strictObject({
      image: z.string(),
      text: z.string().min(1),
      itm: z.number().optional(),
      itc: z.number().optional(),
    })
    .refine(({ itm, itc }) => itm !== undefined || itc !== undefined),
]);

/** Images are relative to `images`, by default the file's own folder. Throws INPUT_NOT_FOUND, INVALID_OPTION. */
export async function readGolden(file: string, images: string = dirname(file)): Promise<Expectation[]> {
  const rows = (await readLines(file)).flatMap(({ where, value }) => {
    const row = rowSchema.safeParse(value);
    if (row.success) return expectations(where, resolve(images, row.data.image), row.data);
    throw new CapfleetError(
      "INVALID_OPTION",
      `${where}: expected image and caption; image, question, answer (and template, with ${QUESTION_SLOT}); or image, text and itm or itc`,
    );
  });
  if (rows.length === 0) throw new CapfleetError("INVALID_OPTION", `${file} has no rows`);
  return rows;
}

function expectations(row: string, image: string, golden: z.infer<typeof rowSchema>): Expectation[] {
  const at = { row, image };
  if ("caption" in golden) {
    const { caption: text, prompt = null, decoding, ids, score } = golden;
    return [{ ...at, task: { name: "caption", decoding, captions: 1, prompt }, texts: [], text, ids, score }];
  }
  if ("question" in golden) {
    const { question, template = null, answer: text, decoding, ids, score } = golden;
    const task: TaskSpec = { name: "vqa", decoding, questions: { given: [question] }, template, answers: null };
    return [{ ...at, task, texts: [question], text, ids, score }];
  }
  return (["itm", "itc"] as const).flatMap((name) => {
    const score = golden[name];
    const texts = [golden.text];
    return score === undefined ? [] : [{ ...at, task: { name, texts: { given: texts } }, texts, score }];
  });
}

const DEMO = join(BUNDLED_MODELS, "..");
const sampleSchema = z.object({ id: z.string(), image: z.string(), alt: z.string(), question: z.string() });
const answerSchema = z.object({
  id: z.string(),
  text: z.string().optional(),
  /** With the start token. */
  ids: z.array(z.number()).optional(),
  score: z.number().optional(),
});

/** What transformers says of the sample scenes with the bundled checkpoint `name`; null for any other model. */
export async function bundledGolden(name: string): Promise<Expectation[] | null> {
  if (!/^demo-(caption|vqa|itm)$/.test(name)) return null;
  const samples = (await readLines(join(DEMO, "samples.jsonl"))).map(({ value }) => sampleSchema.parse(value));
  const read = async (task: string) => {
    const answers = await readLines(join(DEMO, "golden", `golden-${task}.jsonl`));
    return answers.flatMap(({ where, value }) => {
      const { id, text, ids, score } = answerSchema.parse(value);
      const { image, alt, question } = samples.find((sample) => sample.id === id)!;
      const path = join(DEMO, image);
      if (task === "itm" || task === "itc") return expectations(where, path, { image, text: alt, [task]: score });
      const greedy = { image, decoding: decodingSchema.parse({}), ids: ids?.slice(1) };
      if (task === "vqa") return expectations(where, path, { ...greedy, question, answer: text! });
      return expectations(where, path, { ...greedy, caption: text! });
    });
  };
  return name === "demo-itm" ? [...(await read("itm")), ...(await read("itc"))] : read(name.replace("demo-", ""));
}

async function readLines(file: string): Promise<{ where: string; value: unknown }[]> {
  const text = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    throw new CapfleetError("INPUT_NOT_FOUND", `${file} can't be read (${cause.code})`, { cause });
  });
  return text.split("\n").flatMap((line, i) => {
    if (line.trim() === "") return [];
    const where = `${file}:${i + 1}`;
    try {
      return [{ where, value: JSON.parse(line) as unknown }];
    } catch {
      throw new CapfleetError("INVALID_OPTION", `${where} is not JSON`);
    }
  });
}
