import { PRECISIONS } from "@capfleet/shared/contract";
import { sourceOf } from "@capfleet/shared/models";
import { Command } from "commander";
import { expect, test } from "vitest";
import { addJobOptions, askedJob } from "../src/cli/job-options.ts";

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
    model,
    precision: null,
    request: {
      task: { name: "vqa", questions: { given: [question] }, template: null, answers: null },
      input: "photos/",
      output: "s3://labels/remotes/",
    },
  });
  expect(sourceOf(job.model)).toMatchObject({ kind: "hub", repo: model, revision: null });
});

test("each precision can be asked for, and no other", () => {
  const as = (precision: string) => asked("caption", "photos", "--out", "labels", "--precision", precision).precision;
  expect(PRECISIONS.map(as)).toEqual(["fp32", "fp16", "int8", "int4"]);
  expect(() => as("int2")).toThrow(expect.objectContaining({ code: "commander.invalidArgument" }));
});

test("without --model a task has its bundled one", () => {
  expect(asked("vqa", "photos", "--out", "labels", "--question", "?").model).toBe("demo-vqa");
});
