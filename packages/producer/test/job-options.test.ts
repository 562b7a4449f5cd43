import { PRECISIONS } from "@capfleet/shared/contract";
import { sourceOf } from "@capfleet/shared/models";
import { Command } from "commander";
import { expect, test } from "vitest";
import { addJobOptions } from "../src/cli/job-options.ts";
import { askedJob } from "../src/jobs/asked-job.ts";

/** What `capfleet run` is asked for, as a shell hands it over. */
function asked(...args: string[]) {
  const command = addJobOptions(new Command().exitOverride().configureOutput({ outputError: () => {} }), []);
  const [task, input] = command.parse(args, { from: "user" }).args;
  return askedJob(task!, input!, command.opts(), "local");
}

test("a BLIP-2 model of the hub is asked a question", () => {
  const question = "How many remotes are there?";
  const model = "Salesforce/blip2-opt-2.7b";
  const job = asked("vqa", "photos/", "--model", model, "--question", question, "--out", "s3://labels/remotes/");
  expect(job).toMatchObject({
    models: [model],
    precision: null,
    request: {
      task: { name: "vqa", questions: { given: [question] }, template: null, answers: null },
      input: "photos/",
      output: "s3://labels/remotes/",
    },
  });
  expect(sourceOf(job.models[0]!)).toMatchObject({ kind: "hub", repo: model, revision: null });
});

test("each precision can be asked for, and no other", () => {
  const as = (precision: string) => asked("caption", "photos", "--out", "labels", "--precision", precision).precision;
  expect(PRECISIONS.map(as)).toEqual(["fp32", "fp16", "int8", "int4"]);
  expect(() => as("int2")).toThrow(expect.objectContaining({ code: "commander.invalidArgument" }));
});

test("without --model a task has its bundled one", () => {
  expect(asked("vqa", "photos", "--out", "labels", "--question", "?").models).toEqual(["demo-vqa"]);
});

test("the tasks that clean have models for each role, and no others", () => {
  const models = (task: string, ...args: string[]) => asked(task, "photos", "--out", "labels", ...args).models;
  expect(models("capfilt")).toEqual(["demo-caption", "demo-itm"]);
  expect(models("capfilt", "--captioner", "a/b", "--filter", "c/d")).toEqual(["a/b", "c/d"]);
  expect(models("filter", "--text", "a dog", "--filter", "c/d")).toEqual(["c/d"]);
  const refused = (message: RegExp) =>
    expect.objectContaining({ code: "INVALID_OPTION", message: expect.stringMatching(message) });
  expect(() => models("capfilt", "--model", "a/b")).toThrow(refused(/^--model: .*--captioner and --filter/));
  expect(() => models("filter", "--text", "a", "--captioner", "a/b")).toThrow(
    refused(/^--captioner: .*it has --filter/),
  );
  expect(() => models("caption", "--filter", "a/b")).toThrow(refused(/^--filter: .*it has --model/));
});
