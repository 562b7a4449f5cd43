/// <reference lib="esnext.float16" />
import { expect, test } from "vitest";
import { bytesIn, convert, type Form } from "../../src/blip/rounding.ts";

/** 4 outputs of 32 inputs each, from small to large; one output is all zeros. */
const ROWS = Float32Array.from({ length: 4 * 32 }, (_, i) =>
  i >= 96 ? 0 : Math.sin(i * 1.7) * 10 ** (Math.floor(i / 32) - 1),
);

async function converted(form: Form, parts = 1): Promise<Buffer> {
  const size = ROWS.length / parts;
  async function* read() {
    // One buffer for all parts, as a reader has it.
    const buffer = new Float32Array(size);
    for (let at = 0; at < ROWS.length; at += size) {
      buffer.set(ROWS.subarray(at, at + size));
      yield buffer;
    }
  }
  const bytes = Buffer.concat(await Array.fromAsync(convert(read(), form), (part) => part.slice()));
  expect(bytes.length).toBe(bytesIn(ROWS.length, form));
  return bytes;
}

const floats = (bytes: Buffer) => new Float32Array(new Uint8Array(bytes).buffer);

test.each([1, 2, 8])("blocks: each number is within half a scale of what it was, read in %i parts", async (parts) => {
  const scales = floats(await converted({ kind: "block scales", block: 16 }, parts));
  const blocks = await converted({ kind: "blocks", block: 16 }, parts);
  for (const [i, byte] of blocks.entries()) {
    const scale = scales[Math.floor(i / 16)]!;
    expect(Math.abs((byte - 128) * scale - ROWS[i]!)).toBeLessThanOrEqual(scale / 2 + 1e-6);
  }
  expect(Math.max(...blocks)).toBe(255);
  expect([...blocks.subarray(96)]).toEqual(Array(32).fill(128));
});

test.each([1, 2, 4])("nibbles: each number is within a scale of what it was, read in %i parts", async (parts) => {
  const scales = floats(await converted({ kind: "nibble scales", block: 32 }, parts));
  const bytes = await converted({ kind: "nibbles", block: 32 }, parts);
  const nibbles = [...bytes].flatMap((byte) => [byte % 16, byte >> 4]);
  for (const [i, nibble] of nibbles.entries()) {
    const scale = Math.abs(scales[Math.floor(i / 32)]!);
    const number = (nibble - 8) * scales[Math.floor(i / 32)]!;
    // Half a scale, but at the end that has one level less.
    expect(Math.abs(number - ROWS[i]!)).toBeLessThanOrEqual((nibble === 15 ? 1 : 0.5) * scale + 1e-6);
  }
  for (let block = 0; block < 3; block++) {
    const at = block * 32;
    const most = ROWS.subarray(at, at + 32).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
    const place = ROWS.indexOf(most, at);
    expect(nibbles[place]).toBe(0);
    expect(-8 * scales[block]!).toBeCloseTo(most, 6);
  }
  expect(nibbles.slice(96)).toEqual(Array(32).fill(8));
});

test.each([1, 2])(
  "columns: transposed, in 7 bits, each number within half a scale, read in %i parts",
  async (parts) => {
    const scales = floats(await converted({ kind: "column scales", inputs: 32 }, parts));
    const columns = new Int8Array(await converted({ kind: "columns", inputs: 32 }, parts));
    for (let out = 0; out < 4; out++) {
      for (let i = 0; i < 32; i++) {
        const number = columns[i * 4 + out]! * scales[out]!;
        expect(Math.abs(number - ROWS[out * 32 + i]!)).toBeLessThanOrEqual(scales[out]! / 2 + 1e-6);
      }
    }
    // So that the sum of two products with unsigned bytes fits into 16 bits.
    expect(Math.max(...columns.map(Math.abs))).toBe(63);
  },
);

test("float16 rounds, float32 does not", async () => {
  expect(floats(await converted({ kind: "float32" }, 2))).toEqual(ROWS);
  const halves = await converted({ kind: "float16" }, 2);
  expect(Array.from(new Float16Array(new Uint8Array(halves).buffer))).toEqual(Array.from(ROWS, Math.f16round));
});
