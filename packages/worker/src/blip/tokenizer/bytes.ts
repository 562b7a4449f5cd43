/**
 * Bytes as the characters that byte-level BPE writes its vocabulary in, and the words that it looks at one by one: as
 * Hugging Face tokenizers (pre_tokenizers/byte_level.rs) has them, which is what transformers uses.
 */

/** GPT-2's: a printable byte stands for itself, the others are U+0100 and up, in the order of the bytes. */
const CHARACTERS: readonly string[] = characters();
const BYTES: ReadonlyMap<string, number> = new Map(CHARACTERS.map((character, byte) => [character, byte]));

function characters(): string[] {
  let next = 0x100;
  const printable = (byte: number) => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

/** `\s` of JavaScript, which @huggingface/tokenizers 0.2.0 uses here, has U+FEFF in it and lacks U+0085. */
const WORD =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** The text's words, each in characters that stand for bytes. Bytes whose character is not `known` are left out. */
export function wordsOf(text: string, known: (character: string) => boolean): string[] {
  const words = text.match(WORD) ?? [];
  return words.map((word) =>
    Array.from(Buffer.from(word), (byte) => CHARACTERS[byte]!)
      .filter(known)
      .join(""),
  );
}

/**
 * The text of the tokens' bytes together; what is not UTF-8 becomes U+FFFD. A token with any character that stands for no
 * byte means itself. @huggingface/tokenizers 0.2.0 makes a zero byte of such a character, and cuts characters in two
 * where an added token is in between.
 */
export function textOf(tokens: readonly string[]): string {
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  return utf8.decode(Buffer.concat(tokens.map(bytesOf)));
}

function bytesOf(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => BYTES.get(character));
  return bytes.includes(undefined) ? Buffer.from(token) : Uint8Array.from(bytes as number[]);
}
