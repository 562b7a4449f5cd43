/**
 * A model family: what config.json says, and how the architecture is built of parts. A further family is one more file
 * beside this one, named in index.ts. What a producer must know of it without loading it, its tasks and the length of its
 * texts, stands in packages/shared/src/models (engine.ts, checkpoint.ts).
 */
import type * as z from "zod";
import type { Generation } from "../folder.ts";
import type { Builds } from "../graphs.ts";
import type { Preprocessing, VisionConfig } from "../images.ts";
import { readJson } from "../json.ts";

/** What compiling a checkpoint, and labelling with the engine that comes of it, needs to know. */
export interface Described {
  vision: VisionConfig;
  /** The most tokens that a text can have, the start token included. */
  positions: number;
  /** Null for a model that makes no texts. */
  generation: Generation | null;
  tokenizer: Vocabulary;
  builds(preprocessing: Preprocessing): Builds;
}

/** What the tokenizer must fit. */
export type Vocabulary =
  | { kind: "bert"; vocabulary: number; end: number | null }
  | { kind: "bpe"; vocabulary: number; start: number; end: number };

export interface Family {
  /** As config.json calls them. */
  architectures: readonly string[];
  /** `file`: a config.json. Throws MODEL_INVALID, MODEL_UNSUPPORTED, which name the file and the field. */
  read(file: string, architecture: string): Promise<Described>;
}

/** `describe` throws MODEL_INVALID and MODEL_UNSUPPORTED. */
export const family = <Config>(
  architectures: readonly string[],
  schema: z.ZodType<Config>,
  describe: (config: Config, architecture: string, file: string) => Described,
): Family => ({
  architectures,
  read: async (file, architecture) => describe(await readJson(file, schema), architecture, file),
});
