/** Which files an input means, of the kinds that may be several; what is only of tars is in webdataset.test.ts. */
import { parquetWriteBuffer } from "hyparquet-writer";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { kindOfPrefix } from "../../src/datasets/index.ts";
import { type Store, storesFromEnv } from "../../src/storage/index.ts";
import { backends } from "../storage/backends.ts";
import { Manifest } from "./manifests.ts";

const parquet = (...images: string[]) =>
  new Uint8Array(parquetWriteBuffer({ columnData: [{ name: "image", data: images, type: "STRING" }] }));
const WRITERS: Record<string, (...images: string[]) => string | Uint8Array> = {
  jsonl: (...images) => images.map((image) => JSON.stringify({ image })).join("\n"),
  csv: (...images) => ["image", ...images].join("\n"),
  tsv: (...images) => ["image", ...images].join("\n"),
  parquet,
};

describe.each(backends())("files on $name", (backend) => {
  describe.skipIf(backend.isMissing)("", () => {
    let store: Store;
    let open: (name: string) => Manifest;

    beforeEach(async () => {
      const { store: empty, config } = await backend.open();
      store = empty;
      const stores = storesFromEnv(config === "" ? {} : { CAPFLEET_STORES: config });
      open = (name) => new Manifest(stores, decodeURI(store.uri) + name);
    });
    afterAll(() => backend.close());

    const ids = async (manifest: Manifest) => (await manifest.records()).map(({ id }) => id);

    test.each(Object.keys(WRITERS))("a range of .%s, in its order, resumable anywhere", async (ending) => {
      for (const n of [8, 9, 10, 11]) {
        const name = `in/part-${String(n).padStart(2, "0")}.${ending}`;
        await store.put(name, WRITERS[ending]!(...(n === 9 ? [] : [`${n}-a.jpg`, `${n}-b.jpg`])));
      }
      const manifest = open(`in/part-{08..10}.${ending}`);
      await manifest.check();
      expect(await ids(manifest)).toEqual(["8-a.jpg", "8-b.jpg", "10-a.jpg", "10-b.jpg"]);
      const [record] = await manifest.records();
      expect(record!.image).toBe(store.uriOf("in/8-a.jpg"));
      await manifest.expectResumable();
      for (const [name, code, message] of [
        [`in/part-{08..12}.${ending}`, "INPUT_NOT_FOUND", `part-12.${ending} does not exist`],
        [`in/part-{10..08}.${ending}`, "INVALID_URI", "runs backwards"],
        [`in/none.${ending}`, "INPUT_NOT_FOUND", "does not exist"],
      ] as const) {
        await expect(open(name).check()).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
      }
    });

    test.each(Object.keys(WRITERS))("a .%s that changes while it is read can't be read on", async (ending) => {
      const write = (...images: string[]) => store.put(`list.${ending}`, WRITERS[ending]!(...images));
      await write("a.jpg", "b.jpg");
      const [first] = await open(`list.${ending}`).entries();
      await write("a.jpg", "b.jpg", "c.jpg");
      await expect(open(`list.${ending}`).entries(first!.cursor)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
    });

    test("a prefix of Parquet files, in the order of their names, without what is not data", async () => {
      await store.put("b.parquet", parquet("b.jpg"));
      await store.put("a/part-0.parquet", parquet("x.jpg"));
      await store.put("_temporary/0.parquet", parquet("no.jpg"));
      await store.put("a/.hidden.parquet", parquet("no.jpg"));
      await store.put("_SUCCESS", "");
      expect(await kindOfPrefix(store)).toBe("parquet");
      expect((await open("").records()).map(({ image }) => image)).toEqual([
        store.uriOf("a/x.jpg"),
        store.uriOf("b.jpg"),
      ]);
      await open("").expectResumable();
      await store.put("a/1.tar", "");
      expect(await kindOfPrefix(store)).toBe("webdataset");
      await store.put("z.png", "");
      expect(await kindOfPrefix(store)).toBe("prefix");
    });
  });
});
