/** Errors as the API answers them: the registry's, each with a status, in one shape. */
import { asCapfleetError, CapfleetError, type ErrorCode } from "@capfleet/shared/contract";
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";
import * as z from "zod";

export const errorSchema = z
  .strictObject({
    error: z.strictObject({
      code: z.string().meta({ description: "Stable; see docs/errors.md", examples: ["INPUT_NOT_FOUND"] }),
      message: z.string().meta({ description: "What is wrong" }),
      fix: z.string().meta({ description: "What to do about it" }),
      retryable: z.boolean().meta({ description: "Whether the same request may succeed later" }),
    }),
  })
  .meta({ id: "Error" });

/** What is not here has its scope's status. */
const STATUS: Partial<Record<ErrorCode, number>> = {
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  LOCATION_FORBIDDEN: 403,
  HOST_FORBIDDEN: 403,
  ROUTE_NOT_FOUND: 404,
  JOB_NOT_FOUND: 404,
  ROW_NOT_FOUND: 404,
  SCHEDULE_NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  JOB_STATE: 409,
  SCHEDULE_EXISTS: 409,
  OUTPUT_IN_USE: 409,
  DATASET_BUSY: 409,
  SOURCE_CHANGED: 409,
  BODY_TOO_LARGE: 413,
  MEDIA_TYPE_UNSUPPORTED: 415,
  INPUT_NOT_FOUND: 422,
  INPUT_EMPTY: 422,
  MANIFEST_INVALID: 422,
  TAR_INVALID: 422,
  OUTPUT_INSIDE_INPUT: 422,
  MODEL_NOT_FOUND: 422,
  TASK_UNSUPPORTED: 422,
  WEBHOOK_FORBIDDEN: 422,
  RATE_UNKNOWN: 422,
  COUNT_TIMEOUT: 422,
  IDEMPOTENCY_CONFLICT: 422,
  RATE_LIMITED: 429,
  IMAGE_TOO_LARGE: 413,
  NO_WORKER: 503,
  INFER_BUSY: 503,
  INFER_TIMEOUT: 504,
  THUMBNAIL_TIMEOUT: 504,
  TOO_MANY_STREAMS: 429,
};
const SCOPE_STATUS = { usage: 400, row: 422, shard: 503, system: 500 } as const;

const SUBMISSIONS = ["/v1/jobs", "/v1/infer", "/v1/plan", "/v1/schedules"];
/** A submission names the bucket: that it does not exist, or is closed to capfleet, is the request's fault. */
const SUBMITTED: Partial<Record<ErrorCode, number>> = {
  STORE_BUCKET_NOT_FOUND: 422,
  STORE_ACCESS_DENIED: 422,
  STORE_UNSORTED: 422,
  OBJECT_TOO_LARGE: 422,
};

export function statusOf(error: CapfleetError, isSubmission = false): number {
  const status = (isSubmission && SUBMITTED[error.code]) || STATUS[error.code];
  return status ?? (error.scope === "system" && error.retryable ? 503 : SCOPE_STATUS[error.scope]);
}

export function errorBody({ code, message, fix, retryable }: CapfleetError): z.infer<typeof errorSchema> {
  return { error: { code, message, fix, retryable } };
}

/** Fastify's error handler. */
export function answerError(thrown: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = asApiError(thrown);
  const isSubmission = request.method === "POST" && SUBMISSIONS.includes(request.routeOptions.url ?? "");
  const status = statusOf(error, isSubmission);
  const { code, message } = error;
  if (code === "INTERNAL") request.log.error({ err: error.cause }, "a request met something unexpected");
  else if (status >= 500) request.log.warn({ code, err: message }, "a request failed");
  if (status === 401) reply.header("www-authenticate", "Bearer");
  // Fastify would close at once, and a client still sending would see a reset connection and not this answer. What is left
  // of the body is passed over, for as long as a request may take.
  if (code === "BODY_TOO_LARGE") reply.removeHeader("connection");
  return reply.code(status).type("application/json").serializer(JSON.stringify).send(errorBody(error));
}

/** Any thrown value as an error that may be shown: what was not expected stays in the log. */
export function asApiError(thrown: unknown): CapfleetError {
  if (thrown instanceof CapfleetError && thrown.code !== "INTERNAL") return asFields(thrown);
  if (hasZodFastifySchemaValidationErrors(thrown)) {
    const { instancePath, message } = thrown.validation[0]!;
    const where = [thrown.validationContext, ...instancePath.split("/").filter(Boolean)].join(".");
    return new CapfleetError("REQUEST_INVALID", `${where}: ${message}`);
  }
  const { code = "", statusCode = 500, message } = thrown as Partial<FastifyError>;
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE")
    return new CapfleetError("MEDIA_TYPE_UNSUPPORTED", "the body is not said to be application/json");
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE")
    return new CapfleetError("BODY_TOO_LARGE", "the body is larger than this route takes");
  if (statusCode >= 400 && statusCode < 500)
    return new CapfleetError("REQUEST_INVALID", message ?? "the request is not understood");
  return new CapfleetError(
    "INTERNAL",
    "the request met something that was not expected; the producer's log says what",
    {
      cause: asCapfleetError(thrown).cause ?? thrown,
    },
  );
}

const OTHER_NAMES: Record<string, string> = { out: "output", tz: "time_zone" };

/** Rules are shared with the command line, and speak of its options; here, they are fields. */
function asFields(error: CapfleetError): CapfleetError {
  if (error.code !== "INVALID_OPTION") return error;
  const fieldOf = (_: string, name: string) => OTHER_NAMES[name] ?? name.replaceAll("-", "_");
  const message = error.message.replace(/--([a-z]+(?:-[a-z]+)*)/g, fieldOf);
  return new CapfleetError(error.code, message);
}
