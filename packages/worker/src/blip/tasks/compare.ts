/** itm, itc and embed: how well texts fit an image, and the vectors that say so. */
import type { Tensor } from "onnxruntime-node";
import type { Item, Output } from "../../engine/engine.ts";
import { padded, rows, take } from "../tensors.ts";
import { finite, type Model, pieces, tokenize } from "./model.ts";

/** Tokens of texts that go through the graphs at a time. */
const TOKENS = 512;

/** itm: the probability that each text is of its image. */
export async function itm(model: Model, items: readonly Item[], states: Tensor): Promise<Output[]> {
  const texts = items.map((item) => tokenize(model, item.texts));
  const scores = texts.map(({ ids }) => Array<number>(ids.length));
  const tokens = texts.map(({ ids }) => ids);
  for (const piece of pieces(tokens, TOKENS)) {
    const feeds = { states: take(states, piece.images), ...padded(piece.texts) };
    const { probability } = await model.sessions.run("match", feeds);
    for (const [i, { item, text }] of piece.places.entries()) {
      scores[item]![text] = finite((probability!.data as Float32Array)[i]!, model);
    }
  }
  return scores.map((scores, i) => ({ task: "itm", scores, cut: texts[i]!.cut }));
}

/** itc: the cosine similarity of each text and its image, or the largest of its image's vectors'. */
export async function itc(model: Model, items: readonly Item[], images: Tensor): Promise<Output[]> {
  const texts = await textVectors(model, items);
  return vectorsOf(images).map((vectors, i) => ({
    task: "itc",
    scores: texts[i]!.embeddings.map((text) => Math.max(...vectors.map((vector) => dot(vector, text)))),
    cut: texts[i]!.cut,
  }));
}

export async function embedTexts(model: Model, items: readonly Item[]): Promise<Output[]> {
  return (await textVectors(model, items)).map((vectors) => ({ task: "embed", ...vectors }));
}

export const embedImages = (images: Tensor): Output[] =>
  vectorsOf(images).map((embeddings) => ({ task: "embed", embeddings, cut: [] }));

/** The vectors of each image; `images`: [images, vectors, dimensions]. */
function vectorsOf(images: Tensor): number[][][] {
  const dimensions = images.dims[2]!;
  return rows(images).map((all) =>
    Array.from({ length: all.length / dimensions }, (_, i) => all.slice(i * dimensions, (i + 1) * dimensions)),
  );
}

/** Texts alone need no image, so those of all items stand in a batch with each other; a text that several have, once. */
async function textVectors(model: Model, items: readonly Item[]): Promise<{ embeddings: number[][]; cut: number[] }[]> {
  const different = [...new Set(items.flatMap(({ texts }) => texts))];
  const { ids, cut } = tokenize(model, different);
  const cutTexts = new Set(cut.map((i) => different[i]!));
  const vectors = new Map<string, number[]>();
  for (const piece of pieces([ids], TOKENS)) {
    const { embedding } = await model.sessions.run("text", { ...padded(piece.texts) });
    for (const [i, vector] of rows(embedding!).entries()) vectors.set(different[piece.places[i]!.text]!, vector);
  }
  return items.map(({ texts }) => ({
    embeddings: texts.map((text) => vectors.get(text)!),
    cut: texts.flatMap((text, i) => (cutTexts.has(text) ? [i] : [])),
  }));
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
