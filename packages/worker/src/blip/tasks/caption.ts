/** caption: a text for each image, or several. */
import { CapfleetError, type TaskSpec } from "@capfleet/shared/contract";
import type { Tensor } from "onnxruntime-node";
import type { Item, Output } from "../../engine/engine.ts";
import { generate } from "./generate.ts";
import { generationOf, type Model } from "./model.ts";

type Caption = Extract<TaskSpec, { name: "caption" }>;

export async function caption(model: Model, task: Caption, items: readonly Item[], states: Tensor): Promise<Output[]> {
  const prompt = promptOf(model, task.prompt);
  const subject = { states, keys: items.map(({ id }) => id), prompts: items.map(() => prompt) };
  const all = await generate(model, subject, { ...task, count: task.captions, withPrompt: true });
  return all.map((captions) => ({ task: "caption", captions }));
}

function promptOf(model: Model, prompt: string | null): number[] {
  const { file, texts } = model;
  const ids = [generationOf(model).start, ...(prompt === null ? [] : texts.tokens(prompt))];
  if (ids.length <= file.positions) return ids;
  const message = `the prompt is longer than ${file.ref.model}'s ${file.positions} tokens`;
  throw new CapfleetError("INVALID_OPTION", message);
}
