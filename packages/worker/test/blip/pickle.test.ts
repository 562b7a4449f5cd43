import { expect, test } from "vitest";
import { type Allowed, type Global, PickleError, unpickle } from "../../src/blip/checkpoint/pickle.ts";
import { global, int, pickled, text, tuple } from "./archives.ts";

const globals: Global[] = [
  { name: "collections.OrderedDict", call: () => new Map() },
  { name: "test.list", call: (...args) => args },
  { name: "torch.FloatStorage" },
];
const allowed: Allowed = {
  globals: new Map(globals.map((global) => [global.name, global])),
  persistent: (id) => ({ id }),
};
const read = (...code: string[]) => unpickle(pickled(...code), allowed);

test.each<[string, string, unknown]>([
  ["None and booleans", "(N\x88\x89t.", [null, true, false]],
  [
    "integers",
    `(K\xffM\x01\x02${int(-5)}\x8a\x02\x00\x80\x8a\x00\x8a\x05\x00\x00\x00\x00\x01t.`,
    [255, 513, -5, -32768, 0, 2 ** 32],
  ],
  ["a float, big-endian", "G\x3f\xf8\x00\x00\x00\x00\x00\x00.", 1.5],
  ["texts, long and short", `(${text("ñ日")}\x8c\x02\xc3\xb1U\x01at.`, ["ñ日", "ñ", "a"]],
  ["tuples", "()K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87t.", [[], [1], [1, 2], [1, 2, 3]]],
  ["a list", "](K\x01K\x02eK\x03a.", [1, 2, 3]],
  [
    "a dict",
    `}(${text("a")}K\x01${text("b")}K\x02u${text("c")}K\x03s.`,
    new Map([
      ["a", 1],
      ["b", 2],
      ["c", 3],
    ]),
  ],
  ["what was kept", `(${text("a")}q\x05${text("b")}r\x00\x01\x00\x00h\x05j\x00\x01\x00\x00t.`, ["a", "b", "a", "b"]],
  ["what was kept in protocol 4", `\x80\x04\x95\x09\x00\x00\x00\x00\x00\x00\x00(${text("a")}\x94h\x00t.`, ["a", "a"]],
  ["a call", `${global("test", "list")}(K\x01K\x02tR.`, [1, 2]],
  ["a call in protocol 4", `${text("test")}${text("list")}\x93)R.`, []],
  ["a persistent id", "K\x07Q.", { id: 7 }],
  [
    "a dict's state, which does not matter",
    `${global("collections", "OrderedDict")})R}${text("a")}K\x01sb.`,
    new Map(),
  ],
])("%s", (_, code, value) => {
  expect(read(code)).toEqual(value);
});

const SYSTEM = global("posix", "system");
test.each<[string, string, RegExp]>([
  ["a global", SYSTEM, /asks for posix\.system, which is no part of a tensor/],
  ["a global of a module that has others", global("torch", "load"), /asks for torch\.load,/],
  ["a global of protocol 4", `${text("posix")}${text("system")}\x93.`, /asks for posix\.system/],
  ["a global that is a property of all objects", global("__proto__", "constructor"), /asks for __proto__\.constructor/],
  ["an instance by name", "(iposix\nsystem\n.", /asks for posix\.system/],
  ["an instance of what is allowed", "(icollections\nOrderedDict\n.", /makes an instance/],
  ["a call of a mere name", `${global("torch", "FloatStorage")})R.`, /calls torch\.FloatStorage, which is refused/],
  ["a call of a number", "K\x01)R.", /calls what is no function/],
  ["a call of None", "N)R.", /calls what is no function/],
  ["a call of a method of what was made", `${text("x")})R.`, /calls what is no function/],
  [
    "a call with more arguments than any has",
    `${global("test", "list")}(${"N".repeat(100)}tR.`,
    /calls test\.list, which/,
  ],
  ["the state of a list", "]}b.", /sets the state of something other than a dict/],
  ["an instance (NEWOBJ)", `${global("collections", "OrderedDict")})\x81.`, /instruction 0x81 at byte 26/],
  ["an instance (OBJ)", `(${global("collections", "OrderedDict")}o.`, /instruction 0x6f/],
  ["an extension (EXT1)", "\x82\x01.", /instruction 0x82 at byte 0/],
  ["an instruction that does not exist", "\xff.", /instruction 0xff/],
])("%s is refused", (_, code, message) => {
  expect(() => read(code)).toThrow(PickleError);
  expect(() => read(code)).toThrow(message);
});

test.each<[string, string, RegExp]>([
  ["an empty one", "", /ends too early/],
  ["one that ends before its STOP", "N", /ends too early/],
  ["one that ends in a text", "X\xff\xff\xff\xffab", /ends too early/],
  ["one that ends in a name", "cposix", /ends too early/],
  ["STOP with nothing to give", ".", /takes a value where there is none/],
  ["a tuple of more than there is", "N\x86.", /takes a value where there is none/],
  ["a tuple without a mark", "Nt.", /has no mark/],
  ["taking a mark", "(\x85.", /takes a value where there is none/],
  ["keeping what is not there", "q\x00.", /takes a value where there is none/],
  ["recalling what was not kept", "h\x07.", /recalls 7, which it has not kept/],
  ["a global whose name is no text", `${text("posix")}]\x93.`, /asks for what has no name/],
  ["appending to a number", "K\x01K\x02a.", /appends to what is no list/],
  ["items of a list", "](K\x01K\x02u.", /sets items of what is no dict/],
  ["a key without a value", "}(K\x01u.", /sets items of what is no dict/],
  ["a huge number", `\x8a\xff${"\x01".repeat(255)}.`, /a number of 255 bytes/],
  ["a text that is not UTF-8", "X\x01\x00\x00\x00\xff.", /a text that is not UTF-8/],
])("%s is damage", (_, code, message) => {
  expect(() => read(code)).toThrow(PickleError);
  expect(() => read(code)).toThrow(message);
});

test("what is used a million times over is not copied", () => {
  // Each list holds the one before ten times: 10^30 numbers, were they written out.
  const layers = Array.from(
    { length: 30 },
    (_, i) => `](${`h${String.fromCharCode(i)}`.repeat(10)}eq${String.fromCharCode(i + 1)}`,
  );
  expect(read("]q\x00", ...layers, ".")).toHaveLength(10);
});

test("a damaged pickle is never anything but a PickleError", () => {
  const sound = pickled(
    "\x80\x02",
    `${global("collections", "OrderedDict")}q\x00)R(${text("a")}`,
    tuple("K\x01", "M\x01\x02"),
    "q\x01h\x01]K\x05a\x86X\x01\x00\x00\x00bNu}b.",
  );
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed % below;
  };
  let failures = 0;
  for (let i = 0; i < 20_000; i++) {
    const bytes = Buffer.from(sound);
    for (let n = random(3); n >= 0; n--) bytes[random(bytes.length)] = random(256);
    try {
      unpickle(bytes.subarray(0, 1 + random(bytes.length)), allowed);
    } catch (thrown) {
      expect(thrown).toBeInstanceOf(PickleError);
      failures++;
    }
  }
  expect(failures).toBeGreaterThan(10_000);
});
