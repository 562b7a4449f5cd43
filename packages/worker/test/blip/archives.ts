/** Files of torch.save, put together byte by byte, so that a test can have them wrong. */

export interface ZipEntry {
  name: string;
  data: Uint8Array;
  /** 0: stored, as torch.save has it. */
  method?: number;
  flags?: number;
  /** What the archive says of its size, where that is not the truth. */
  claims?: number;
}

/** https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT; `zip64`: with all sizes and offsets in 64 bits. */
export function zip(entries: readonly ZipEntry[], { zip64 = false } = {}): Buffer {
  const files: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const { name, data, method = 0, flags = 0, claims = data.length } of entries) {
    const size = zip64 ? 0xffffffff : claims;
    // What encryption puts in front of the data.
    const plain = flags & 1 ? size - 12 : size;
    const nameBytes = Buffer.from(name);
    const extra = zip64 ? Buffer.concat([u16(1), u16(24), u64(claims), u64(claims), u64(at)]) : Buffer.alloc(0);
    const common = [u16(20), u16(flags), u16(method), u32(0), u32(0), u32(size), u32(plain), u16(nameBytes.length)];
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), ...common, u16(0), nameBytes, data]);
    files.push(local);
    const offset = u32(zip64 ? 0xffffffff : at);
    const more = [u16(extra.length), u16(0), u16(0), u16(0), u32(0), offset, nameBytes, extra];
    directory.push(Buffer.concat([Buffer.from("PK\x01\x02"), u16(20), ...common, ...more]));
    at += local.length;
  }
  const records = Buffer.concat(directory);
  const count = entries.length;
  const end = at + records.length;
  const end64 = [Buffer.from("PK\x06\x06"), u64(44), u16(45), u16(45), u32(0), u32(0)];
  end64.push(u64(count), u64(count), u64(records.length), u64(at));
  end64.push(Buffer.from("PK\x06\x07"), u32(0), u64(end), u32(1));
  const [few, start] = zip64 ? [u16(0xffff), u32(0xffffffff)] : [u16(count), u32(at)];
  const last = [Buffer.from("PK\x05\x06"), u16(0), u16(0), few, few, u32(records.length), start, u16(0)];
  return Buffer.concat([...files, records, ...(zip64 ? end64 : []), ...last]);
}

/** A file of torch.save with this pickle. */
export function archive(
  pickle: Uint8Array,
  storages: Record<string, Uint8Array> = {},
  more: ZipEntry[] = [],
): ZipEntry[] {
  const data = Object.entries(storages).map(([key, data]) => ({ name: `archive/data/${key}`, data }));
  return [{ name: "archive/data.pkl", data: pickle }, ...data, ...more];
}

export const u16 = (value: number) => Buffer.from(new Uint16Array([value]).buffer);
export const u32 = (value: number) => Buffer.from(new Uint32Array([value]).buffer);
export const u64 = (value: number | bigint) => Buffer.from(new BigUint64Array([BigInt(value)]).buffer);

/** Instructions of pickles, as texts of bytes. */
export const pickled = (...code: string[]) => Buffer.from(code.join(""), "latin1");
export const text = (value: string) =>
  `X${u32(Buffer.byteLength(value)).toString("latin1")}${Buffer.from(value).toString("latin1")}`;
export const int = (value: number) => `J${u32(value).toString("latin1")}`;
export const tuple = (...items: string[]) => `(${items.join("")}t`;
export const global = (module: string, name: string) => `c${module}\n${name}\n`;

export interface TestView {
  kind?: string;
  key?: string;
  offset?: number;
  shape?: number[];
  strides?: number[];
}

/** A tensor, as a state_dict's pickle has it. */
export function view({
  kind = "FloatStorage",
  key = "0",
  offset = 0,
  shape = [2],
  strides = [1],
}: TestView = {}): string {
  const storage = `${tuple(text("storage"), global("torch", kind), text(key), text("cpu"), int(2))}Q`;
  const hooks = `${global("collections", "OrderedDict")})R`;
  const args = tuple(storage, int(offset), tuple(...shape.map(int)), tuple(...strides.map(int)), "\x89", hooks);
  return `${global("torch._utils", "_rebuild_tensor_v2")}${args}R`;
}

export const stateDict = (tensors: Record<string, string>) =>
  pickled("\x80\x02}(", ...Object.entries(tensors).map(([name, tensor]) => text(name) + tensor), "u.");
