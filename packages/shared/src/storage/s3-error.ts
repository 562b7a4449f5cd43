/** What an S3 server, the SDK or the network says, as an error with a code. */
import type { S3ServiceException } from "@aws-sdk/client-s3";
import { CapfleetError, type ErrorCode } from "../contract/errors.ts";

const CODES: Record<string, ErrorCode> = {
  NoSuchKey: "OBJECT_NOT_FOUND",
  NotFound: "OBJECT_NOT_FOUND",
  NoSuchBucket: "STORE_BUCKET_NOT_FOUND",
  InvalidBucketName: "INVALID_URI",
  KeyTooLongError: "INVALID_URI",
  PreconditionFailed: "SOURCE_CHANGED",
  // Archived in a cold storage class: the bytes are not there until somebody restores them.
  InvalidObjectState: "OBJECT_NOT_FOUND",
  AuthorizationHeaderMalformed: "STORE_CREDENTIALS",
  CredentialsProviderError: "STORE_CREDENTIALS",
  ExpiredToken: "STORE_CREDENTIALS",
  InvalidAccessKeyId: "STORE_CREDENTIALS",
  InvalidToken: "STORE_CREDENTIALS",
  RequestExpired: "STORE_CREDENTIALS",
  RequestTimeTooSkewed: "STORE_CREDENTIALS",
  SignatureDoesNotMatch: "STORE_CREDENTIALS",
  TokenProviderError: "STORE_CREDENTIALS",
  TokenRefreshRequired: "STORE_CREDENTIALS",
};

/** The answer's HTTP status; 0 where there was no answer. */
export function statusOf(error: unknown): number {
  const { $metadata, $response } = (error ?? {}) as Partial<S3ServiceException>;
  return $metadata?.httpStatusCode ?? $response?.statusCode ?? 0;
}

/** S3's own name for the error, such as NoSuchKey. */
export function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : "";
}

/** A header of the answer, by its name in lower case. */
export function responseHeader(error: unknown, name: string): string | undefined {
  return (error as Partial<S3ServiceException>).$response?.headers[name];
}

/** The text has the status, S3's name for the error, and the server's or the network's own words. */
export function s3Error(error: unknown, uri: string): CapfleetError {
  if (error instanceof CapfleetError) return error;
  const status = statusOf(error);
  const name = nameOf(error);
  const { message = "", code = "" } = error as NodeJS.ErrnoException;
  const said = message === "UnknownError" ? "" : message.split("\n", 1)[0]!;
  const why = [status === 0 ? "" : String(status), /^(Error|AggregateError|Unknown|NotFound)$/.test(name) ? "" : name];
  why.push(said === "" ? code : said);
  const text = `${uri}: ${why.filter((part) => part !== "").join(" ")}`;
  return new CapfleetError(CODES[name] ?? byStatus(status), text, { cause: error });
}

/** A 4xx that is none of the above is a peculiarity of the server or a proxy: like a 5xx it blocks the job, with its text. */
function byStatus(status: number): ErrorCode {
  if (status === 401) return "STORE_CREDENTIALS";
  if (status === 403) return "STORE_ACCESS_DENIED";
  if (status === 404) return "OBJECT_NOT_FOUND";
  return "STORE_UNAVAILABLE";
}
