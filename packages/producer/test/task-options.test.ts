import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { taskSpecSchema } from "@capfleet/shared/contract";
import { Command } from "commander";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { addTaskOptions } from "../src/cli/task-options.ts";
import { parseTask, taskSpecOf } from "../src/jobs/task-spec.ts";

let folder: string;
let file: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-options-"));
  file = join(folder, "answers.txt");
  await writeFile(file, "\uFEFFyes\r\n\nno\n yes \nperhaps, later");
  await writeFile(join(folder, "blank.txt"), "\n \n");
});
afterAll(() => rm(folder, { recursive: true }));

/** The spec that a command line asks for, as a shell hands it over. */
function specOf(task: string, ...args: string[]) {
  const command = addTaskOptions(new Command().exitOverride().configureOutput({ outputError: () => {} }));
  const spec = taskSpecOf(parseTask(task), command.parse(args, { from: "user" }).opts());
  // What the job file holds is the same.
  expect(taskSpecSchema.parse(JSON.parse(JSON.stringify(spec)))).toEqual(spec);
  return spec;
}

const greedy = {
  maxNewTokens: 20,
  minNewTokens: 0,
  beams: 1,
  lengthPenalty: 1,
  repetitionPenalty: 1,
  sampling: null,
};
const drawn = { seed: 0, temperature: 1, topK: 0, topP: 1 };

describe("each task's options", () => {
  test("caption", () => {
    expect(specOf("caption")).toEqual({ name: "caption", decoding: greedy, captions: 1, prompt: null });
    const beams = [
      "--num-beams",
      "4",
      "--length-penalty",
      "-1.5",
      "--repetition-penalty",
      "1.2",
      "--num-captions",
      "3",
    ];
    const lengths = ["--max-new-tokens", "30", "--min-new-tokens", "30", "--prompt", "a picture of"];
    expect(specOf("caption", ...beams, ...lengths)).toEqual({
      name: "caption",
      decoding: {
        maxNewTokens: 30,
        minNewTokens: 30,
        beams: 4,
        lengthPenalty: -1.5,
        repetitionPenalty: 1.2,
        sampling: null,
      },
      captions: 3,
      prompt: "a picture of",
    });
  });

  test.each([
    [["--sample"], drawn],
    [["--temperature", "0.5"], { ...drawn, temperature: 0.5 }],
    [["--top-k", "40"], { ...drawn, topK: 40 }],
    [["--top-p", "0.9"], { ...drawn, topP: 0.9 }],
    [["--seed", "4294967295"], { ...drawn, seed: 4294967295 }],
  ])("%j draws, and needs no beams for several captions", (args, sampling) => {
    const spec = specOf("caption", ...args, "--num-captions", "5");
    expect(spec).toMatchObject({ decoding: { ...greedy, sampling }, captions: 5 });
  });

  test("vqa: questions of the job or of a column", () => {
    expect(specOf("vqa", "--question", "is it?", "--question", "-?", "--max-new-tokens", "3")).toEqual({
      name: "vqa",
      decoding: { ...greedy, maxNewTokens: 3 },
      questions: { given: ["is it?", "-?"] },
      template: null,
      answers: null,
    });
    expect(specOf("vqa", "--question-column", "q")).toMatchObject({ questions: { column: "q" } });
  });

  test.each([["Question: {question} Answer:"], ["{question}"], ["{question} {question}", "--answers", "yes,no"]])(
    "vqa: the template %j",
    (template, ...more) => {
      expect(specOf("vqa", "--question", "?", "--template", template, ...more)).toMatchObject({ template });
    },
  );

  test("vqa: a closed list from a file, from commas, or one by one, each answer once", () => {
    const answers = (...args: string[]) => {
      const spec = specOf("vqa", "--question", "?", ...args);
      return spec.name === "vqa" && spec.answers;
    };
    expect(answers("--answers", file)).toEqual(["yes", "no", "perhaps, later"]);
    expect(answers("--answers", "yes, no,,yes")).toEqual(["yes", "no"]);
    expect(answers("--answer", "well, yes", "--answer", "no")).toEqual(["well, yes", "no"]);
  });

  test.each(["itm", "itc", "embed"])("%s: texts of the job or of a column", (task) => {
    expect(specOf(task, "--text", "a", "--text", "b")).toEqual({ name: task, texts: { given: ["a", "b"] } });
    expect(specOf(task, "--text-column", "alt")).toEqual({ name: task, texts: { column: "alt" } });
  });

  test("embed: of images, where there are no texts", () => {
    expect(specOf("embed")).toEqual({ name: "embed", texts: null });
  });
});

describe("refused, with the names of what does not fit", () => {
  const q = ["--question", "?"];
  test.each<[string, string[], RegExp]>([
    ["caption", ["--question", "?"], /^--question: the task "caption" has no such option .*--num-beams/],
    ["caption", ["--text-column", "alt"], /^--text-column: the task "caption"/],
    ["vqa", [...q, "--prompt", "a"], /^--prompt: the task "vqa"/],
    ["caption", ["--template", "{question}"], /^--template: the task "caption"/],
    ["itm", ["--text", "a", "--template", "{question}"], /^--template: the task "itm"/],
    ["embed", ["--template", "{question}"], /^--template: the task "embed"/],
    ["vqa", [...q, "--template", "Answer:"], /^--template "Answer:": it lacks \{question\}/],
    ["vqa", [...q, "--num-captions", "2"], /^--num-captions: the task "vqa"/],
    ["itm", ["--text", "a", "--num-beams", "1"], /^--num-beams: the task "itm" .*--text, --text-column/],
    ["itc", ["--text", "a", "--sample"], /^--sample: the task "itc"/],
    ["embed", ["--seed", "0"], /^--seed: the task "embed"/],
    ["embed", ["--answer", "a"], /^--answer: the task "embed"/],
    ["vqa", [], /"vqa" needs --question or --question-column/],
    ["itm", [], /"itm" needs --text or --text-column/],
    ["itc", [], /"itc" needs --text or --text-column/],
    ["vqa", [...q, "--question-column", "q"], /--question and --question-column/],
    ["itm", ["--text", "a", "--text-column", "q"], /--text and --text-column/],
    ["embed", ["--text", "a", "--text-column", "q"], /--text and --text-column/],
    ["caption", ["--num-beams", "2", "--top-p", "0.5"], /--num-beams 2 and --top-p/],
    ["caption", ["--num-beams", "2", "--seed", "0"], /--num-beams 2 and --seed/],
    ["caption", ["--min-new-tokens", "21"], /--min-new-tokens 21 .*--max-new-tokens 20/],
    ["vqa", [...q, "--max-new-tokens", "4", "--min-new-tokens", "5"], /--min-new-tokens 5 .*--max-new-tokens 4/],
    ["caption", ["--length-penalty", "2"], /--length-penalty .*--num-beams/],
    ["caption", ["--num-captions", "2"], /--num-captions 2 needs --num-beams 2/],
    ["caption", ["--num-captions", "4", "--num-beams", "3"], /--num-captions 4 needs --num-beams 4/],
    ["vqa", [...q, "--answer", "a", "--answers", "a,b"], /--answer and --answers/],
    ["vqa", [...q, "--answers", "a,b", "--num-beams", "3"], /--num-beams and --answers/],
    ["vqa", [...q, "--answer", "a", "--max-new-tokens", "3"], /--max-new-tokens and --answer:/],
    ["vqa", [...q, "--answers", "nowhere.txt"], /--answers nowhere.txt: no such file/],
    ["vqa", [...q, "--answers", ","], /--answers , holds no answer/],
    ["vqa", [...q, "--answers", Array(10_001).fill("a").join()], /holds 10001 answers; 10000 at most/],
    ["vqa", [...q, "--answers", `a,${"b".repeat(10_001)}`], /answer 2 has more than 10000 characters/],
    [
      "itm",
      Array(101)
        .fill(["--text", "x".repeat(10_000)])
        .flat(),
      /1010000 characters together/,
    ],
  ])("%s %.60j", (task, args, message) => {
    const refused = expect.objectContaining({ code: "INVALID_OPTION", message: expect.stringMatching(message) });
    expect(() => specOf(task, ...args)).toThrow(refused);
  });

  test("a file without answers", () => {
    const blank = join(folder, "blank.txt");
    expect(() => specOf("vqa", ...q, "--answers", blank)).toThrow(`--answers ${blank} holds no answer`);
  });

  test.each([
    ["--max-new-tokens", "0", "513", "1.5", "x"],
    ["--min-new-tokens", "-1", "513", ""],
    ["--num-beams", "0", "17"],
    ["--length-penalty", "-11", "11", "x", ""],
    ["--repetition-penalty", "0", "101", "-1", "NaN"],
    ["--temperature", "0", "101", " "],
    ["--top-k", "-1", "0.5"],
    ["--top-p", "0", "1.01", "x"],
    ["--seed", "-1", "4294967296", "0.5"],
    ["--num-captions", "0", "17"],
    ["--prompt", "", " ", "x".repeat(10_001)],
    ["--question", "", "x".repeat(10_001)],
    ["--question-column", ""],
    ["--template", "", "x".repeat(10_001)],
    ["--text", "\n"],
  ])("values of %s that can't be", (name, ...values) => {
    for (const value of values) {
      expect(() => specOf("caption", name, value)).toThrow(
        expect.objectContaining({ code: "commander.invalidArgument" }),
      );
    }
  });

  test("more texts than a job can give", () => {
    const args = Array.from({ length: 1_001 }, () => ["--text", "a"]).flat();
    expect(() => specOf("itm", ...args)).toThrow("1000 times");
  });

  test("an unknown task", () => {
    expect(() => specOf("segment")).toThrow(expect.objectContaining({ code: "UNKNOWN_TASK" }));
  });
});
