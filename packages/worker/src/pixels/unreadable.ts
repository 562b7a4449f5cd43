import { CapfleetError } from "@capfleet/shared/contract";

/**
 * An IMAGE_UNREADABLE with the decoder's reason as one line. libvips' text may also hold other decodes' messages, or lack
 * this one's (see gate.ts), so only a line that is about the file's format is taken, and only to be read by people.
 */
export function unreadable(thrown: unknown, bytes: Uint8Array): CapfleetError {
  return new CapfleetError("IMAGE_UNREADABLE", `the image can't be decoded: ${reason(thrown, bytes)}`, {
    cause: thrown,
  });
}

function reason(thrown: unknown, bytes: Uint8Array): string {
  const format = formatOf(bytes);
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  if (format === undefined) return "not a JPEG, PNG, WebP, GIF, TIFF or AVIF file";
  // The first line is the most particular.
  const lines = text.replace("Input buffer has corrupt header: ", "").split("\n");
  const line = lines.find((candidate) => candidate.toLowerCase().includes(format));
  return line?.trim() ?? `cut-off, damaged or unusual ${format.toUpperCase()} data`;
}

/** By the first bytes; in the words of libvips' messages. */
function formatOf(bytes: Uint8Array): string | undefined {
  const start = Buffer.from(bytes.subarray(0, 12)).toString("latin1");
  if (start.startsWith("\xff\xd8")) return "jpeg";
  if (start.startsWith("\x89PNG")) return "png";
  if (start.startsWith("RIFF") && start.endsWith("WEBP")) return "webp";
  if (start.startsWith("GIF8")) return "gif";
  if (start.startsWith("II") || start.startsWith("MM")) return "tiff";
  if (start.startsWith("ftyp", 4)) return "heif";
  return undefined;
}
