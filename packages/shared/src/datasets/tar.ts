/**
 * The headers of a tar, read in place: where each member's bytes are. Formats: v7, ustar, GNU (long names, sizes over
 * 8 GB) and pax. Nothing is unpacked, so names are only names: `..` and a leading slash mean nothing here.
 */
import { isUtf8 } from "node:buffer";
import type { TarBytes } from "./tar-bytes.ts";

export interface TarMember {
  name: string;
  /** Only "file" has its bytes as they were in the tar. */
  type: "file" | "folder" | "sparse file" | "hard link" | "symbolic link" | "device" | "FIFO" | "special entry";
  /** Where the member's bytes begin, in bytes from the start of the tar; `size`: how many the header says there are. */
  offset: number;
  size: number;
  /** Where the next header begins; beyond the tar's end only where the member is not whole. */
  next: number;
  /** False where the tar ends within the member's bytes. */
  isWhole: boolean;
}

/** The tar can't be read on from `offset`. */
export class TarBroken extends Error {
  readonly offset: number;

  constructor(offset: number, message: string) {
    super(message);
    this.offset = offset;
  }
}

const BLOCK = 512;
/** Of what goes before a header: a long name, or pax records. */
const MAX_EXTENSION = 1024 * 1024;

const TYPES: Record<string, TarMember["type"]> = {
  "\0": "file",
  "0": "file",
  "1": "hard link",
  "2": "symbolic link",
  "3": "device",
  "4": "device",
  "5": "folder",
  "6": "FIFO",
  "7": "file",
  S: "sparse file",
};
/** Their size field says something else than how many bytes follow. */
const WITHOUT_BODY = new Set<TarMember["type"]>(["hard link", "symbolic link", "device", "folder", "FIFO"]);

/**
 * The members from the header at `offset` on. A member's own bytes can be read from `tar` until the next one is asked
 * for. Throws TarBroken where a header is not one, where there is no mark of the tar's end, and where anything but zeros
 * follows that mark.
 */
export async function* tarMembers(tar: TarBytes, offset: number): AsyncGenerator<TarMember> {
  let at = offset;
  let longName: string | null = null;
  let pax: Map<string, string> | null = null;
  for (;;) {
    const start = at;
    const block = await tar.read(at, BLOCK);
    if (block.length < BLOCK) throw new TarBroken(start, cutShort(start, block.length));
    if (isZero(block)) break;
    const header = readHeader(block, start);
    at += BLOCK;

    if ("LKxg".includes(header.flag)) {
      const body = await readExtension(tar, at, header.size, start);
      at = padded(at + header.size);
      // K is the long target of a link, which is of no use here.
      if (header.flag === "L") longName = decode(untilZero(body));
      else if (header.flag === "x") pax = readPax(body, start);
      else if (header.flag === "g") refuseGlobal(readPax(body, start), start);
      continue;
    }

    let type = TYPES[header.flag] ?? "special entry";
    const name = pax?.get("path") ?? longName ?? header.name;
    if (type === "file" && name.endsWith("/")) type = "folder"; // v7 has no other way to say it
    if (type === "sparse file") at = await skipSparseMap(tar, block, at, start);
    if (pax && [...pax.keys()].some((key) => key.startsWith("GNU.sparse."))) type = "sparse file";
    const size = WITHOUT_BODY.has(type) ? 0 : sizeOf(pax, header.size, start);
    const isWhole = at + size <= tar.size;
    const next = isWhole ? Math.min(padded(at + size), tar.size) : padded(at + size);
    const realName = pax?.get("GNU.sparse.name") ?? name;
    yield { name: realName, type, offset: at, size, next, isWhole };
    if (!isWhole) return;
    at = next;
    longName = null;
    pax = null;
  }
  for (at += BLOCK; at < tar.size; at += BLOCK) {
    if (!isZero(await tar.read(at, BLOCK)))
      throw new TarBroken(at, `something follows the tar's end at byte ${at} (tars joined into one?)`);
  }
}

function cutShort(start: number, length: number): string {
  if (length > 0) return `the tar is cut off in the header at byte ${start}`;
  return `the tar breaks off at byte ${start}, without the zeros that mark the end of a tar`;
}

function readHeader(block: Buffer, start: number): { flag: string; name: string; size: number } {
  const size = readNumber(block.subarray(124, 136));
  if (!hasChecksum(block) || size === null) throw new TarBroken(start, `there is no tar header at byte ${start}`);
  const flag = block.toString("latin1", 156, 157);
  const name = decode(untilZero(block.subarray(0, 100)));
  // "ustar\0" is POSIX, whose names go on before themselves; GNU's "ustar " has other things there.
  const isPosix = block.toString("latin1", 257, 263) === "ustar\0";
  const prefix = isPosix ? decode(untilZero(block.subarray(345, 500))) : "";
  return { flag, name: prefix === "" ? name : `${prefix}/${name}`, size };
}

/** The sum of the header's bytes, its own field counted as spaces; some old writers added signed bytes. */
function hasChecksum(block: Buffer): boolean {
  let unsigned = 0;
  let signed = 0;
  for (let i = 0; i < BLOCK; i++) {
    const byte = i >= 148 && i < 156 ? 32 : block[i]!;
    unsigned += byte;
    signed += byte < 128 ? byte : byte - 256;
  }
  const given = readNumber(block.subarray(148, 156));
  return given === unsigned || given === signed;
}

/** Octal digits, or with the first bit set a big-endian number; null for anything else. */
function readNumber(field: Buffer): number | null {
  if (field[0]! === 0x80) {
    let value = 0;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return Number.isSafeInteger(value) ? value : null;
  }
  const digits = untilZero(field).toString("latin1").trim();
  return /^[0-7]*$/.test(digits) ? Number.parseInt(digits || "0", 8) : null;
}

async function readExtension(tar: TarBytes, at: number, size: number, start: number): Promise<Buffer> {
  if (size > MAX_EXTENSION)
    throw new TarBroken(start, `the header at byte ${start} is longer than ${MAX_EXTENSION} bytes`);
  const body = await tar.read(at, size);
  if (body.length < size) throw new TarBroken(start, cutShort(start, size));
  return body;
}

/** Records "<length> <key>=<value>\n"; the length counts its own digits. An empty value takes a record back. */
function readPax(body: Buffer, start: number): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < body.length && body[at] !== 0; ) {
    const space = body.indexOf(32, at);
    const length = Number(body.toString("latin1", at, Math.max(at, space)));
    const end = at + length;
    const equals = body.indexOf(61, space);
    const isRecord = length > 0 && Number.isSafeInteger(length) && end <= body.length && body[end - 1] === 10;
    if (!isRecord || space < 0 || equals < 0 || equals >= end)
      throw new TarBroken(start, `the pax header at byte ${start} can't be read`);
    const key = body.toString("utf8", space + 1, equals);
    const value = decode(body.subarray(equals + 1, end - 1));
    if (value === "") records.delete(key);
    else records.set(key, value);
    at = end;
  }
  return records;
}

/** What holds for all members that follow could not be known to who begins to read among them. */
function refuseGlobal(pax: Map<string, string>, start: number): void {
  const bad = [...pax.keys()].find((key) => key === "path" || key === "size" || key.startsWith("GNU.sparse."));
  if (bad) throw new TarBroken(start, `the global pax header at byte ${start} sets ${bad}, which is not supported`);
}

function sizeOf(pax: Map<string, string> | null, inHeader: number, start: number): number {
  const given = pax?.get("size");
  if (given === undefined) return inHeader;
  const size = Number(given);
  if (/^\d+$/.test(given) && Number.isSafeInteger(size)) return size;
  throw new TarBroken(start, `the pax header at byte ${start} has a size that is no number`);
}

/** GNU's sparse files: further blocks of the map may stand between header and bytes. */
async function skipSparseMap(tar: TarBytes, header: Buffer, at: number, start: number): Promise<number> {
  let next = at;
  for (let goesOn = header[482] === 1; goesOn; next += BLOCK) {
    const block = await tar.read(next, BLOCK);
    if (block.length < BLOCK) throw new TarBroken(start, cutShort(start, block.length));
    goesOn = block[504] === 1;
  }
  return next;
}

const padded = (offset: number): number => Math.ceil(offset / BLOCK) * BLOCK;
const isZero = (block: Buffer): boolean => block.every((byte) => byte === 0);

function untilZero(field: Buffer): Buffer {
  const zero = field.indexOf(0);
  return zero < 0 ? field : field.subarray(0, zero);
}

/** Names are bytes. Those that are not UTF-8 are taken as Latin-1, so that different names stay different. */
const decode = (bytes: Buffer): string => bytes.toString(isUtf8(bytes) ? "utf8" : "latin1");
