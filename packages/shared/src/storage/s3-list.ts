/** The objects below a prefix of a bucket, page by page, in the order that every S3 server should list them in. */
import type { ListObjectsV2CommandInput, ListObjectsV2CommandOutput } from "@aws-sdk/client-s3";
import { CapfleetError } from "../contract/errors.ts";
import { compareKeys } from "./key.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import { s3Error } from "./s3-error.ts";
import type { ListOptions, ObjectInfo } from "./store.ts";

/** `base` is the store's own prefix: keys and options are relative to it. */
export async function* listObjects(
  bucket: S3Bucket,
  base: string,
  { prefix = "", after = "" }: ListOptions,
): AsyncGenerator<ObjectInfo> {
  const uri = `s3://${bucket.name}/${base}${prefix}`;
  const query: ListObjectsV2CommandInput = {
    Bucket: bucket.name,
    Prefix: base + prefix,
    // XML has no way to write control characters, and the SDK's parser gets those beyond U+FFFF wrong.
    EncodingType: "url",
  };
  if (after !== "") query.StartAfter = base + after;

  let last = "";
  let token: string | undefined;
  do {
    const page = await listPage(bucket, token === undefined ? query : { ...query, ContinuationToken: token }, uri);
    for (const { Key = "", Size = 0, ETag } of page.Contents ?? []) {
      const path = page.EncodingType === "url" ? decode(Key, uri) : Key;
      if (compareKeys(path, last) <= 0)
        throw new CapfleetError(
          "STORE_UNSORTED",
          `${uri}: the store lists ${JSON.stringify(path)} after ${JSON.stringify(last)}`,
        );
      last = path;
      const key = path.slice(base.length);
      // A key that ends with a slash is a folder that some program has marked. Not every server knows StartAfter.
      if (!path.endsWith("/") && compareKeys(key, after) > 0) yield { key, size: Size, etag: unquote(ETag) };
    }
    token = page.IsTruncated ? page.NextContinuationToken : undefined;
  } while (token !== undefined);
}

/** HTTP quotes ETags, the listings of some servers don't: bare, they compare. */
export function unquote(etag = ""): string {
  return etag.replace(/^"(.*)"$/, "$1");
}

async function listPage(
  bucket: S3Bucket,
  query: ListObjectsV2CommandInput,
  uri: string,
): Promise<ListObjectsV2CommandOutput> {
  try {
    const page = await bucket.call((client) => client.listObjectsV2(query));
    // Any web server answers 200 with something; without a look at it, that would pass for an empty bucket.
    const isComplete = !page.IsTruncated || page.NextContinuationToken !== query.ContinuationToken;
    if (page.Name !== undefined && isComplete) return page;
  } catch (error) {
    throw s3Error(error, uri);
  }
  throw new CapfleetError("STORE_UNAVAILABLE", `${uri}: the answer is no S3 listing; check the endpoint`);
}

function decode(key: string, uri: string): string {
  try {
    return decodeURIComponent(key.replaceAll("+", "%20"));
  } catch (cause) {
    throw new CapfleetError("INVALID_URI", `${uri}: the key ${key} (percent-encoded) is not UTF-8`, { cause });
  }
}
