/** One image and any task, answered while the caller waits, by the workers that do bulk work. Nothing of it is kept. */
import { CapfleetError, resultRowSchema } from "@capfleet/shared/contract";
import { findServedModel } from "@capfleet/shared/models";
import { MAX_UPLOAD_BYTES } from "@capfleet/shared/queues";
import { normalizeUri } from "@capfleet/shared/storage";
import * as z from "zod";
import { inferRequestOf, inferTaskOf } from "../../infer/request.ts";
import { modelsOf } from "../../jobs/asked-job.ts";
import { checkReadable } from "../access.ts";
import type { Api, Server } from "../api.ts";
import { errorResponses, fields } from "../schemas.ts";
import { camelOf, submissionSchema } from "../submission.ts";

/** An upload in base64, and room for the rest. */
const BODY_BYTES = Math.ceil((MAX_UPLOAD_BYTES * 4) / 3) + 1024 * 1024;
const DATA_URL = /^data:[\w.+/-]*;base64,([A-Za-z0-9+/]*={0,2})$/;
const MAX_SECONDS = 120;

const { task, model, captioner, filter, precision, prompt, num_captions, question, template, answer, text, threshold } =
  submissionSchema.shape;
const { max_new_tokens, min_new_tokens, num_beams, length_penalty, repetition_penalty } = submissionSchema.shape;
const { sample, temperature, top_k, top_p, seed } = submissionSchema.shape;

const inferSchema = fields({
  task,
  image: z
    .string()
    .max(BODY_BYTES)
    .optional()
    .meta({
      description: "A location that workers read, or a data: URL with the image in base64; none for `embed` of texts",
      examples: ["s3://photos/1.jpg", "data:image/jpeg;base64,/9j/4AAQ…"],
    }),
  ...{ model, captioner, filter, precision, prompt, num_captions, question, template, answer, text, threshold },
  ...{ max_new_tokens, min_new_tokens, num_beams, length_penalty, repetition_penalty },
  ...{ sample, temperature, top_k, top_p, seed },
  timeout_seconds: z.number().min(0.1).max(MAX_SECONDS).default(30).meta({ description: "How long to wait" }),
}).meta({ id: "InferRequest" });

const answerSchema = resultRowSchema
  .omit({ id: true, image: true, member: true, data: true, kept: true, error: true })
  .strict()
  .meta({ id: "InferAnswer" });

export function inferRoutes(server: Server, { state, config, infer }: Api): void {
  server.post("/v1/infer", {
    config: { scope: "submit" },
    bodyLimit: BODY_BYTES,
    schema: {
      summary: "Label one image, now",
      description: "Ahead of bulk work. The fields are the options of `capfleet infer`; the answer is a row's fields.",
      tags: ["infer"],
      body: inferSchema,
      response: { 200: answerSchema, ...errorResponses(413, 415, 422, 504) },
    },
    handler: async ({ body, caller }, reply) => {
      const { timeout_seconds, image = null, task, ...others } = body;
      const { uri, upload } = imageOf(image);
      if (uri !== null) checkReadable(caller!, uri);
      const options = camelOf(others);
      const { spec, texts } = inferTaskOf(task, options);
      const names = modelsOf(spec.name, options);
      const models = await Promise.all(
        names.map((name) => findServedModel(name, body.precision ?? null, state, config)),
      );
      const record = { id: "", image: uri, ...(texts && { texts }) };
      const request = inferRequestOf(spec, models, record, upload !== null);
      const gone = new AbortController();
      reply.raw.once("close", () => gone.abort());
      return infer.infer(request, upload, { timeoutMs: timeout_seconds * 1_000, signal: gone.signal });
    },
  });
}

/** Throws REQUEST_INVALID, INVALID_URI and IMAGE_TOO_LARGE. */
function imageOf(given: string | null): { uri: string | null; upload: Buffer | null } {
  if (given === null) return { uri: null, upload: null };
  if (!given.startsWith("data:"))
    return { uri: given.startsWith("https://") ? given : normalizeUri(given), upload: null };
  const base64 = DATA_URL.exec(given)?.[1];
  if (base64 === undefined) throw new CapfleetError("REQUEST_INVALID", "body.image: a data: URL must be in base64");
  return { uri: null, upload: Buffer.from(base64, "base64") };
}
