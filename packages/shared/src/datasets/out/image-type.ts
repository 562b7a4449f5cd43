/** What an image's first bytes say it is. Names and content types may say anything. */
import { CapfleetError } from "../../contract/errors.ts";

/** The usual ending of such a file's name. Throws IMAGE_UNREADABLE where the bytes are no image that capfleet reads. */
export function imageEnding(bytes: Buffer, name: string): string {
  const starts = (text: string, at = 0) => bytes.toString("latin1", at, at + text.length) === text;
  if (starts("\xff\xd8\xff")) return "jpg";
  if (starts("\x89PNG\r\n\x1a\n")) return "png";
  if (starts("GIF8")) return "gif";
  if (starts("RIFF") && starts("WEBP", 8)) return "webp";
  // The second of each pair is BigTIFF.
  if (["II*\0", "II+\0", "MM\0*", "MM\0+"].some((magic) => starts(magic))) return "tif";
  if (starts("ftyp", 4) && brandsOf(bytes).some((brand) => brand === "avif" || brand === "avis")) return "avif";
  throw new CapfleetError("IMAGE_UNREADABLE", `${name} is not an image`);
}

/** The major brand of an ISO media file, and those that it is compatible with. */
function brandsOf(bytes: Buffer): string[] {
  const end = Math.min(bytes.length, bytes.readUInt32BE(0));
  const brands: string[] = [];
  for (let at = 8; at + 4 <= end; at += 4) if (at !== 12) brands.push(bytes.toString("latin1", at, at + 4));
  return brands;
}
