/** What the tasks have to work with. */
import { CapfleetError } from "@capfleet/shared/contract";
import type { EngineFile, Generation } from "../folder.ts";
import type { Sessions } from "../sessions.ts";
import type { Texts } from "../tokenizer.ts";

export interface Model {
  file: EngineFile;
  sessions: Sessions;
  texts: Texts;
}

/** How the model makes texts; only to be asked by tasks of models that do. */
export function generationOf({ file }: Model): Generation {
  if (file.generation) return file.generation;
  throw new CapfleetError("TASK_UNSUPPORTED", `${file.ref.model} makes no texts`);
}

/** Texts as token ids, cut to what the model can see; `cut`: the places of those that lost their end. */
export function tokenize({ file, texts }: Model, all: readonly string[]): { ids: number[][]; cut: number[] } {
  const encoded = all.map((text) => texts.encode(text, { maxTokens: file.positions }));
  return { ids: encoded.map(({ ids }) => ids), cut: encoded.flatMap(({ cut }, i) => (cut ? [i] : [])) };
}

/** Something that stands in a batch with others; images and their texts go through the graphs in such pieces. */
export interface Piece {
  /** Places of the images in the batch, and for each the same number of texts, as token ids. */
  images: number[];
  texts: number[][];
  /** For each text, which image's it is and which of its texts. */
  places: { item: number; text: number }[];
}

/**
 * Cuts a batch of images with some texts each into pieces of at most `tokens` tokens (or a single text), padding
 * included, in which all images have the same number of texts.
 */
export function pieces(items: readonly (readonly number[][])[], tokens: number): Piece[] {
  const byCount = Map.groupBy(items.keys(), (item) => items[item]!.length);
  const all: Piece[] = [];
  for (const [count, members] of byCount) {
    if (count === 0) continue;
    const longest = Math.max(...members.flatMap((item) => items[item]!.map((ids) => ids.length)));
    const room = Math.max(1, Math.floor(tokens / longest));
    const textsAtATime = Math.min(count, room);
    const imagesAtATime = Math.max(1, Math.floor(room / count));
    for (let from = 0; from < count; from += textsAtATime) {
      for (let first = 0; first < members.length; first += imagesAtATime) {
        const images = members.slice(first, first + imagesAtATime);
        const numbers = Array.from({ length: Math.min(textsAtATime, count - from) }, (_, i) => from + i);
        const places = images.flatMap((item) => numbers.map((text) => ({ item, text })));
        all.push({ images, texts: places.map(({ item, text }) => items[item]![text]!), places });
      }
    }
  }
  return all;
}

/** Throws ENGINE_FAILED where the model computed something that is no number. */
export function finite(number: number, { file }: Model): number {
  if (Number.isFinite(number)) return number;
  throw new CapfleetError("ENGINE_FAILED", `${file.ref.model} computed ${number}`);
}
