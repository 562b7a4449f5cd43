/**
 * The names that transformers gives to a checkpoint's tensors, which may have been saved under older ones
 * (transformers' conversion_mapping.py, "legacy", and core_model_loading.py, rename_source_key).
 */

/** Idempotent. */
export const transformersName = (name: string) =>
  name
    .replace(/^blip\./, "")
    .replace("LayerNorm.gamma", "LayerNorm.weight")
    .replace("LayerNorm.beta", "LayerNorm.bias");
