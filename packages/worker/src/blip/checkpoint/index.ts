export { openCheckpoint } from "./open.ts";
export { CheckpointReader } from "./read.ts";
export { type Checkpoint, elements, type FloatTensor, findTensor, type StoredTensor } from "./tensor.ts";
