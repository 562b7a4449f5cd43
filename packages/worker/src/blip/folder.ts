/** What is in the folder of a compiled engine, besides the tokenizer's files. */
import { engineRefSchema, taskSchema } from "@capfleet/shared/contract";
import { GRAPH_VERSION } from "@capfleet/shared/models";
import * as z from "zod";

export const ENGINE_FILE = "engine.json";
/** What graphs there are; an architecture has some of them. See graphs.ts. */
export type GraphName = "vision" | "greedy" | "sample" | "beam" | "question" | "rank" | "match" | "text";
export const graphFile = (name: GraphName) => `${name}.onnx`;
/** The tensors that the graphs refer to. ONNX wants them beside them. */
export const WEIGHTS_FILE = "weights.bin";

/** How a model makes texts. */
const generationSchema = z.object({
  vocabulary: z.number().int(),
  /** Token ids: what a text starts and ends with. */
  start: z.number().int(),
  end: z.number().int(),
  /** Whether the text looks at the image beside it (cross-attention), or the image stands before it in one sequence. */
  image: z.enum(["beside", "before"]),
  /** What a question is made into; "{question}" stands for it. */
  template: z.string(),
});
export type Generation = z.infer<typeof generationSchema>;

/** engine.json. */
export const engineFileSchema = z.object({
  graph: z.literal(GRAPH_VERSION),
  ref: engineRefSchema,
  tasks: z.array(taskSchema),
  /** Size of the file of weights, in bytes. */
  weights: z.number().int(),
  /** Width and height of the images, in pixels. */
  size: z.number().int(),
  /** The most tokens that a text can have, the start token included. */
  positions: z.number().int(),
  /** Null for a model that makes no texts. */
  generation: generationSchema.nullable(),
});
export type EngineFile = z.infer<typeof engineFileSchema>;
