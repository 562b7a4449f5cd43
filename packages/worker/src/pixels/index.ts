/** From an image file's bytes to a model's pixels, the same as transformers' PIL processor gets. See decode.ts. */
export { DEFAULT_MAX_PIXELS, decode, decodeAll, type Limits } from "./decode.ts";
export type { Size } from "./raster.ts";
