/** caption: a text for each image, or several. */
import { CapfleetError, type TaskSpec } from "@capfleet/shared/contract";
import type { Tensor } from "onnxruntime-node";
import type { Item, Output } from "../../engine/engine.ts";
import { generate } from "./generate.ts";
import type { Model } from "./model.ts";

type Caption = Extract<TaskSpec, { name: "caption" }>;

export async function caption(model: Model, task: Caption, items: readonly Item[], states: Tensor): Promise<Output[]> {
  const { decoding, captions: count } = task;
  const subject = { states, keys: items.map(({ id }) => id) };
  const all = await generate(model, subject, { decoding, count, prompt: promptOf(model, task.prompt) });
  return all.map((captions) => ({ task: "caption", captions }));
}

/** The start token stands in for the tokenizer's [CLS]; its [SEP] would end the caption before it began. */
function promptOf({ file, texts }: Model, prompt: string | null): number[] {
  const { start, positions } = file.text;
  if (prompt === null) return [start];
  const { ids, cut } = texts.encode(prompt, { maxTokens: positions });
  if (cut)
    throw new CapfleetError("INVALID_OPTION", `the prompt is longer than ${file.ref.model}'s ${positions} tokens`);
  return [start, ...ids.slice(1, -1)];
}
