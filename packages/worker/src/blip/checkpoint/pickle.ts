/**
 * Reads Python pickles, as far as `torch.save(state_dict)` needs them: a pickle is a program for a stack machine
 * (CPython's pickletools.py documents its instructions). Here it can put together numbers, texts, lists, tuples and
 * dicts, and call what the caller allows by name; anything else ends the reading. It has no loops, and what it builds
 * is shared, never copied, so that time and memory are in proportion to its bytes.
 */

/** A list or tuple is an array, a dict a Map. Objects are what the caller made. */
export type PickleValue = null | boolean | number | string | object;

/** Something that a pickle can name. Without `call` it is a mere name. */
export interface Global {
  name: string;
  call?: (...args: PickleValue[]) => PickleValue;
}

export interface Allowed {
  /** By module and name, such as `collections.OrderedDict`. */
  globals: ReadonlyMap<string, Global>;
  /** What a persistent id stands for. */
  persistent(id: PickleValue): PickleValue;
}

/** Why a pickle is not read, in words that go on after the file's name. */
export class PickleError extends Error {}

/** Of a call; torch's functions for tensors have seven. */
const MAX_ARGUMENTS = 16;

const MARK = Symbol("mark");
type Slot = PickleValue | typeof MARK;

/** What the pickle stands for. Throws PickleError: it is damaged, or asks for something that is not allowed. */
export function unpickle(bytes: Uint8Array, { globals, persistent }: Allowed): PickleValue {
  const source = new Source(bytes);
  const stack: Slot[] = [];
  const memo = new Map<number, PickleValue>();

  const pop = (): PickleValue => {
    const value = stack.pop();
    if (value === undefined || value === MARK) throw damaged("takes a value where there is none");
    return value;
  };
  const popToMark = (): PickleValue[] => {
    const at = stack.lastIndexOf(MARK);
    if (at < 0) throw damaged("has no mark where one is needed");
    const values = stack.splice(at) as PickleValue[];
    return values.slice(1);
  };
  const popTuple = (length: number) => Array.from({ length }, pop).reverse();
  const top = (): PickleValue => {
    const value = pop();
    stack.push(value);
    return value;
  };
  const remember = (index: number) => memo.set(index, top());
  const recall = (index: number): PickleValue => {
    const value = memo.get(index);
    if (value === undefined) throw damaged(`recalls ${index}, which it has not kept`);
    return value;
  };
  const globalOf = (module: PickleValue, name: PickleValue): Global => {
    if (typeof module !== "string" || typeof name !== "string") throw damaged("asks for what has no name");
    const full = `${module}.${name}`;
    const found = globals.get(full);
    if (!found) throw new PickleError(`asks for ${full}, which is no part of a tensor: it is refused`);
    return found;
  };
  const append = (values: PickleValue[]) => {
    const list = top();
    if (!Array.isArray(list)) throw damaged("appends to what is no list");
    for (const value of values) list.push(value);
  };
  const setItems = (values: PickleValue[]) => {
    const dict = top();
    if (!(dict instanceof Map) || values.length % 2 !== 0) throw damaged("sets items of what is no dict");
    for (let i = 0; i < values.length; i += 2) dict.set(values[i], values[i + 1]);
  };
  const reduce = (): PickleValue => {
    const [callee, args] = popTuple(2) as [Partial<Global>, PickleValue];
    if (typeof callee?.call === "function" && Array.isArray(args) && args.length <= MAX_ARGUMENTS) {
      return callee.call(...args);
    }
    throw new PickleError(`calls ${callee?.name ?? "what is no function"}, which is refused`);
  };
  /** The state of an OrderedDict, such as a state_dict's `_metadata`, has nothing for us. */
  const build = () => {
    pop();
    if (!(top() instanceof Map)) throw new PickleError("sets the state of something other than a dict: it is refused");
  };

  for (;;) {
    const at = source.at;
    const opcode = source.uint8();
    switch (opcode) {
      case 0x80: // PROTO
        source.uint8();
        break;
      case 0x95: // FRAME
        source.take(8);
        break;
      case code("."): // STOP
        return pop();

      case code("N"): // NONE
        stack.push(null);
        break;
      case 0x88: // NEWTRUE
        stack.push(true);
        break;
      case 0x89: // NEWFALSE
        stack.push(false);
        break;
      case code("K"): // BININT1
        stack.push(source.uint8());
        break;
      case code("M"): // BININT2
        stack.push(source.uint16());
        break;
      case code("J"): // BININT
        stack.push(source.int32());
        break;
      case 0x8a: // LONG1
        stack.push(source.long(source.uint8()));
        break;
      case code("G"): // BINFLOAT
        stack.push(source.float64());
        break;
      case code("X"): // BINUNICODE
        stack.push(source.text(source.uint32()));
        break;
      case 0x8c: // SHORT_BINUNICODE
      case code("U"): // SHORT_BINSTRING
        stack.push(source.text(source.uint8()));
        break;

      case code("("): // MARK
        stack.push(MARK);
        break;
      case code(")"): // EMPTY_TUPLE
      case code("]"): // EMPTY_LIST
        stack.push([]);
        break;
      case code("}"): // EMPTY_DICT
        stack.push(new Map());
        break;
      case 0x85: // TUPLE1, TUPLE2, TUPLE3
      case 0x86:
      case 0x87:
        stack.push(popTuple(opcode - 0x84));
        break;
      case code("t"): // TUPLE
        stack.push(popToMark());
        break;
      case code("a"): // APPEND
        append([pop()]);
        break;
      case code("e"): // APPENDS
        append(popToMark());
        break;
      case code("s"): // SETITEM
        setItems(popTuple(2));
        break;
      case code("u"): // SETITEMS
        setItems(popToMark());
        break;

      case code("q"): // BINPUT
        remember(source.uint8());
        break;
      case code("r"): // LONG_BINPUT
        remember(source.uint32());
        break;
      case 0x94: // MEMOIZE
        remember(memo.size);
        break;
      case code("h"): // BINGET
        stack.push(recall(source.uint8()));
        break;
      case code("j"): // LONG_BINGET
        stack.push(recall(source.uint32()));
        break;

      case code("c"): // GLOBAL
        stack.push(globalOf(source.line(), source.line()));
        break;
      case 0x93: // STACK_GLOBAL
        stack.push(globalOf(...(popTuple(2) as [PickleValue, PickleValue])));
        break;
      case code("i"): // INST: a GLOBAL that is called at once
        globalOf(source.line(), source.line());
        throw new PickleError("makes an instance of a class: it is refused");
      case code("Q"): // BINPERSID
        stack.push(persistent(pop()));
        break;
      case code("R"): // REDUCE
        stack.push(reduce());
        break;
      case code("b"): // BUILD
        build();
        break;
      default:
        throw new PickleError(
          `has instruction 0x${opcode.toString(16)} at byte ${at} of its pickle, which no state_dict needs: it is refused`,
        );
    }
  }
}

const code = (letter: string) => letter.charCodeAt(0);

const damaged = (what: string) => new PickleError(`has a damaged pickle, which ${what}`);

/** The pickle's bytes, taken from the front. Texts and names are UTF-8, numbers little-endian. */
class Source {
  at = 0;
  readonly #bytes: Uint8Array;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  take(length: number): DataView {
    const { buffer, byteOffset, byteLength } = this.#bytes;
    if (length > byteLength - this.at) throw damaged("ends too early");
    const view = new DataView(buffer, byteOffset + this.at, length);
    this.at += length;
    return view;
  }

  uint8 = () => this.take(1).getUint8(0);
  uint16 = () => this.take(2).getUint16(0, true);
  uint32 = () => this.take(4).getUint32(0, true);
  int32 = () => this.take(4).getInt32(0, true);
  /** The only big-endian one. */
  float64 = () => this.take(8).getFloat64(0);

  /** Two's complement in `length` bytes; 0 bytes are 0. */
  long(length: number): number {
    if (length > 8) throw damaged(`has a number of ${length} bytes`);
    const view = this.take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(view.getUint8(i));
    return Number(BigInt.asIntN(8 * length, value));
  }

  text(length: number): string {
    const { buffer, byteOffset } = this.take(length);
    try {
      return this.#decoder.decode(new Uint8Array(buffer, byteOffset, length));
    } catch {
      throw damaged("has a text that is not UTF-8");
    }
  }

  /** Up to the next line feed. */
  line(): string {
    const end = this.#bytes.indexOf(10, this.at);
    if (end < 0) throw damaged("ends too early");
    const line = this.text(end - this.at);
    this.at++;
    return line;
  }
}
