/** Which files of a repository make up a checkpoint. */

/** What decides an answer beside the weights. Only plain names: what a repository has in folders is for somebody else. */
export const SETTINGS =
  /^(config|preprocessor_config|processor_config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json$|^vocab\.txt$|^merges\.txt$/;

/** Either kind of weights may be one file, or several with an index. Other frameworks' files have other names. */
const SAFETENSORS = /^model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/;
const PICKLED = /^pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?$/;

/** Of `names`, those that are downloaded: settings, tokenizer, and one kind of weights; safetensors if there are any. */
export function checkpointFiles(names: readonly string[]): string[] {
  const weights = names.some((name) => SAFETENSORS.test(name)) ? SAFETENSORS : PICKLED;
  return names.filter((name) => SETTINGS.test(name) || weights.test(name)).sort();
}
