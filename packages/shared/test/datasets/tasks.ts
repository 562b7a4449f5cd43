import { decodingSchema, type JobTaskSpec } from "../../src/contract/index.ts";

const decoding = decodingSchema.parse({});
export const caption: JobTaskSpec = { name: "caption", decoding, captions: 1, prompt: null };
export const itm = (column: string): JobTaskSpec => ({ name: "itm", texts: { column } });
