/** Which files of a folder or a repository make up a checkpoint. */

/** It says what the rest is. */
export const CONFIG = "config.json";

/** What decides an answer beside the weights. Only plain names: what a repository has in folders is for somebody else. */
const SETTINGS =
  /^((config|preprocessor_config|processor_config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|vocab\.(txt|json)|merges\.txt)$/;

/**
 * The forms that weights come in, in the order in which they are looked for (packages/worker/src/blip/checkpoint/open.ts):
 * the first that the folder has is read, and copies in other forms decide nothing. Shards can have any name.
 */
const WEIGHTS: { known: string; files: RegExp }[] = [
  { known: "model.safetensors", files: /^model\.safetensors$/ },
  { known: "model.safetensors.index.json", files: /^([^/]+\.safetensors|model\.safetensors\.index\.json)$/ },
  { known: "pytorch_model.bin", files: /^pytorch_model\.bin$/ },
  { known: "pytorch_model.bin.index.json", files: /^([^/]+\.bin|pytorch_model\.bin\.index\.json)$/ },
];

/** Of `names`, those that make up the checkpoint: settings, tokenizer, and one form of weights. Sorted. */
export function checkpointFiles(names: readonly string[]): string[] {
  const weights = WEIGHTS.find(({ known }) => names.includes(known))?.files;
  return names.filter((name) => SETTINGS.test(name) || weights?.test(name)).sort();
}
