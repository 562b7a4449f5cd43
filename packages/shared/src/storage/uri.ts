/**
 * Locations as users write them: `s3://bucket/key` (the key as it is, never percent-encoded), `file:///path` (a
 * percent-encoded URL) and plain paths. The normal form is one of the two URIs. A manifest's images may also be on the web,
 * `https://…`, which is no store. Pure: nothing here touches a store.
 */
import { posix } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { CapfleetError } from "../contract/errors.ts";

/** A file's path is absolute; a slash at the end of a key or path is kept. */
export type Location = { scheme: "s3"; bucket: string; key: string } | { scheme: "file"; path: string };

const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i;
/** `s3:/bucket`, `file:path`, `data:…`: URIs, or misspelt ones, and not files of that name. */
const MISSPELT = /^(s3|file|https?|data):/i;
const BUCKET = /^[a-z0-9][a-z0-9._-]{0,254}$/i;

/** What to write instead, by the scheme that was written. */
const READS: Record<string, string> = {
  http: "images on the web need https://",
  https: "only a manifest's images may be on the web",
  other: "capfleet reads s3://, file:// and paths",
};

/** Reads a location; a relative path is relative to `folder` (by default the working directory). Throws INVALID_URI. */
export function parseUri(text: string, folder: string = process.cwd()): Location {
  if (text === "") throw invalid(text, "is empty");
  if (!text.isWellFormed()) throw invalid(text, "is not valid Unicode (it has a lone surrogate)");
  if (text.includes("\0")) throw invalid(text, "has a NUL character");
  const scheme = SCHEME.exec(text)?.[1]?.toLowerCase();
  if (scheme === "s3") return parseS3(text);
  if (scheme === "file") return parseFile(text);
  if (scheme !== undefined) throw invalid(text, `has the scheme ${scheme}://; ${READS[scheme] ?? READS.other}`);
  if (MISSPELT.test(text)) throw invalid(text, "is not s3://bucket/key, file:///path or a path");
  return { scheme: "file", path: withSlashOf(text, posix.resolve(folder, text)) };
}

/** A location's normal form. */
export function formatUri(location: Location): string {
  if (location.scheme === "s3") return `s3://${location.bucket}/${location.key}`;
  return pathToFileURL(location.path).href;
}

/** A location, as a user wrote it, in its normal form. Throws INVALID_URI. */
export function normalizeUri(text: string, folder?: string): string {
  return formatUri(parseUri(text, folder));
}

/**
 * What the image `reference` means inside the manifest at `base`: absolute URIs, on the web too, and absolute paths stay what they are, relative paths
 * start at the manifest's folder, on S3 too. In a relative path `%`, `?` and `#` are characters like any other, and `.` and
 * `..` are steps. Throws INVALID_URI, also where `..` leads out of the bucket.
 */
export function resolveUri(base: string, reference: string): string {
  const from = parseUri(base);
  if (isHttps(reference)) return parseHttps(reference).href;
  const relative = !SCHEME.test(reference) && !MISSPELT.test(reference) && !reference.startsWith("/");
  if (from.scheme === "file") return normalizeUri(reference, from.path.slice(0, from.path.lastIndexOf("/") + 1));
  if (!relative || reference === "") return normalizeUri(reference);

  const segments = from.key.split("/").slice(0, -1);
  for (const segment of reference.split("/")) {
    if (segment === ".") continue;
    if (segment !== "..") segments.push(segment);
    else if (segments.pop() === undefined) throw invalid(reference, `leads out of the bucket, from ${base}`);
  }
  return normalizeUri(`s3://${from.bucket}/${segments.join("/")}`);
}

/** Whether a location is on the web. */
export function isHttps(uri: string): boolean {
  return /^https:\/\//i.test(uri);
}

/** An https:// URL, without a fragment. Throws INVALID_URI for one that holds credentials; the message doesn't repeat it. */
export function parseHttps(text: string): URL {
  const url = URL.parse(text);
  if (url?.protocol !== "https:") throw invalid(text, "is not a valid https:// URL");
  if (url.username !== "" || url.password !== "")
    throw new CapfleetError("INVALID_URI", `an https:// URL of ${url.host} holds a user name or password`);
  url.hash = "";
  return url;
}

/** Whether `uri` is the folder `folderUri` or lies in it. `s3://b/in` holds `s3://b/in/x` and not `s3://b/in2/x`. */
export function contains(folderUri: string, uri: string): boolean {
  const folder = asFolder(normalizeUri(folderUri));
  return asFolder(normalizeUri(uri)).startsWith(folder);
}

/** A URI with a slash at its end. */
export function asFolder(uri: string): string {
  return uri.endsWith("/") ? uri : `${uri}/`;
}

function parseS3(text: string): Location {
  const rest = text.slice("s3://".length);
  const slash = rest.indexOf("/");
  const bucket = slash < 0 ? rest : rest.slice(0, slash);
  if (!BUCKET.test(bucket)) throw invalid(text, bucket === "" ? "names no bucket" : `has no valid bucket name`);
  return { scheme: "s3", bucket, key: slash < 0 ? "" : rest.slice(slash + 1) };
}

function parseFile(text: string): Location {
  try {
    const url = new URL(text);
    if (url.search !== "" || url.hash !== "")
      throw invalid(text, "has a bare ? or #; in a file:// URL they are written %3F and %23");
    const path = fileURLToPath(url);
    if (path.includes("\0")) throw invalid(text, "has a NUL character");
    return { scheme: "file", path };
  } catch (error) {
    if (error instanceof CapfleetError) throw error;
    throw invalid(text, `is not a valid file:// URL (${(error as Error).message})`);
  }
}

/** `path.resolve` drops the slash that says "a folder". */
function withSlashOf(text: string, path: string): string {
  return text.endsWith("/") && path !== "/" ? `${path}/` : path;
}

function invalid(text: string, why: string): CapfleetError {
  return new CapfleetError("INVALID_URI", `the location ${JSON.stringify(text)} ${why}`);
}
