/** Keys: what one may be, and the one order that listings, indexes and merge-joins use. */
import { CapfleetError } from "../contract/errors.ts";

/**
 * Orders keys by their UTF-8 bytes: negative, 0 or positive. JavaScript's `<` orders by UTF-16 code units, which puts
 * U+10000 and above (surrogates, D800–DFFF) before U+E000–U+FFFF; UTF-8 puts them after.
 */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

/** A code unit's place in code point order: surrogates after everything else. */
function rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}

/** What no store can hold as a key: nothing, what isn't Unicode, a NUL. Throws INVALID_URI, naming `uri`. */
export function checkKey(key: string, uri: string): void {
  if (key === "") throw new CapfleetError("INVALID_URI", `${uri}: the key is empty`);
  if (!key.isWellFormed()) throw new CapfleetError("INVALID_URI", `${uri}: not valid Unicode (a lone surrogate)`);
  if (key.includes("\0")) throw new CapfleetError("INVALID_URI", `${uri}: has a NUL character`);
}
