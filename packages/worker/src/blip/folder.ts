/** What is in the folder of a compiled engine, besides the tokenizer's files. */
import { engineRefSchema, taskSchema } from "@capfleet/shared/contract";
import { GRAPH_VERSION } from "@capfleet/shared/models";
import * as z from "zod";

export const ENGINE_FILE = "engine.json";
export const CAPTION_FILE = "caption.onnx";
/** The tensors that the graph refers to. ONNX wants them beside it. */
export const WEIGHTS_FILE = "weights.bin";

/** engine.json. */
export const engineFileSchema = z.object({
  graph: z.literal(GRAPH_VERSION),
  ref: engineRefSchema,
  tasks: z.array(taskSchema),
  /** Width and height of the images, in pixels. */
  size: z.number().int(),
  /** The most new tokens that a caption can have. */
  maxNewTokens: z.number().int(),
  /** The token id that ends a caption. */
  end: z.number().int(),
});
export type EngineFile = z.infer<typeof engineFileSchema>;
