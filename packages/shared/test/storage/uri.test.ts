import { describe, expect, test } from "vitest";
import { contains, normalizeUri, parseUri, resolveUri } from "../../src/storage/index.ts";

const NASTY = [
  "a b",
  "ü",
  "日本語",
  "😀",
  "?",
  "#",
  "%",
  "%41",
  "+",
  "&=;",
  "'\"",
  "a:b",
  "a\\b",
  "a\nb",
  "\u0001",
  "~",
  "…",
];

describe("parseUri", () => {
  test("reads the three forms", () => {
    expect(parseUri("s3://bucket/a/b.jpg")).toEqual({ scheme: "s3", bucket: "bucket", key: "a/b.jpg" });
    expect(parseUri("S3://bucket")).toEqual({ scheme: "s3", bucket: "bucket", key: "" });
    expect(parseUri("file:///data/my%20photo%23.jpg")).toEqual({ scheme: "file", path: "/data/my photo#.jpg" });
    expect(parseUri("/data//x/../a.jpg")).toEqual({ scheme: "file", path: "/data/a.jpg" });
    expect(parseUri("images", "/data")).toEqual({ scheme: "file", path: "/data/images" });
    expect(parseUri("./images/", "/data")).toEqual({ scheme: "file", path: "/data/images/" });
    expect(parseUri("x")).toEqual({ scheme: "file", path: `${process.cwd()}/x` });
    expect(parseUri("12:30.jpg", "/data")).toEqual({ scheme: "file", path: "/data/12:30.jpg" });
  });

  test("takes an S3 key as it is", () => {
    expect(parseUri("s3://bucket/a%20b?c#d//../e/")).toMatchObject({ key: "a%20b?c#d//../e/" });
  });

  test.each([
    ["", "is empty"],
    ["s3://", "names no bucket"],
    ["s3:///key", "names no bucket"],
    ["s3://my bucket/key", "has no valid bucket name"],
    ["s3:/bucket/key", "is not s3://bucket/key"],
    ["gs://bucket/key", "has the scheme gs://"],
    ["http://host/a.jpg", "has the scheme http://; images on the web need https://"],
    ["https://host/a.jpg", "has the scheme https://; only a manifest's images may be on the web"],
    ["data:image/png;base64,AAAA", "is not s3://bucket/key"],
    ["file://host/a.jpg", "is not a valid file:// URL"],
    ["file:///a?b", "written %3F"],
    ["file:///a#b", "written %3F and %23"],
    ["file:///a%2fb", "is not a valid file:// URL"],
    ["file:///50%", "is not a valid file:// URL"],
    ["file:///a%00", "has a NUL"],
    ["a\0b", "has a NUL"],
    ["s3://bucket/\ud800", "is not valid Unicode"],
  ])("refuses %j", (text, why) => {
    const refused = expect(() => parseUri(text));
    refused.toThrow(expect.objectContaining({ code: "INVALID_URI", message: expect.stringContaining(why) }));
    refused.toThrow(expect.objectContaining({ message: expect.stringContaining(JSON.stringify(text)) }));
  });
});

test.each(NASTY)("the normal form of %j leads back to it", (name) => {
  expect(parseUri(normalizeUri(`/data/${name}.jpg`))).toEqual({ scheme: "file", path: `/data/${name}.jpg` });
  expect(parseUri(normalizeUri(`s3://bucket/${name}.jpg`))).toEqual({
    scheme: "s3",
    bucket: "bucket",
    key: `${name}.jpg`,
  });
});

describe("resolveUri", () => {
  test.each(NASTY)("joins %j to the manifest's folder", (name) => {
    expect(resolveUri("s3://bucket/sets/1/list.jsonl", `img/${name}.jpg`)).toBe(`s3://bucket/sets/1/img/${name}.jpg`);
    const uri = resolveUri("file:///sets/my%20set/list.jsonl", `img/${name}.jpg`);
    expect(parseUri(uri)).toEqual({ scheme: "file", path: `/sets/my set/img/${name}.jpg` });
  });

  test("leaves absolute locations where they are", () => {
    for (const base of ["s3://bucket/sets/list.jsonl", "file:///sets/list.jsonl"]) {
      expect(resolveUri(base, "s3://other/a/../b.jpg")).toBe("s3://other/a/../b.jpg");
      expect(resolveUri(base, "file:///x/a%20b.jpg")).toBe("file:///x/a%20b.jpg");
      expect(resolveUri(base, "/x/a b.jpg")).toBe("file:///x/a%20b.jpg");
    }
  });

  test("takes an image on the web, without its fragment", () => {
    for (const base of ["s3://bucket/sets/list.jsonl", "file:///sets/list.jsonl"]) {
      expect(resolveUri(base, "https://Host.example:443/a b.jpg?c=%2Fd#e")).toBe(
        "https://host.example/a%20b.jpg?c=%2Fd",
      );
      expect(resolveUri(base, "HTTPS://host.example/a.jpg")).toBe("https://host.example/a.jpg");
      const invalid = (why: string) =>
        expect.objectContaining({ code: "INVALID_URI", message: expect.stringContaining(why) });
      expect(() => resolveUri(base, "http://host.example/a.jpg")).toThrow(invalid("need https://"));
      expect(() => resolveUri(base, "https://me:hush@host.example/")).toThrow(invalid("a user name or password"));
      expect(() => resolveUri(base, "https://me:hush@host.example/")).not.toThrow(invalid("hush"));
      for (const text of ["https://", "https://a b/", "https:/a", "https://256.1.1.1/", "https://a:99999/"])
        expect(() => resolveUri(base, text), text).toThrow(expect.objectContaining({ code: "INVALID_URI" }));
    }
  });

  test("takes . and .. as steps", () => {
    expect(resolveUri("s3://bucket/sets/1/list.jsonl", "./../2/a.jpg")).toBe("s3://bucket/sets/2/a.jpg");
    expect(resolveUri("s3://bucket/list.jsonl", "a.jpg")).toBe("s3://bucket/a.jpg");
    expect(resolveUri("s3://bucket/sets/1/", "a.jpg")).toBe("s3://bucket/sets/1/a.jpg");
    expect(resolveUri("file:///sets/1/list.jsonl", "../2/a.jpg")).toBe("file:///sets/2/a.jpg");
    expect(resolveUri("sets/list.jsonl", "a.jpg")).toBe(normalizeUri("sets/a.jpg"));
  });

  test.each(["../../a.jpg", "", "gs://x/a.jpg", "data:image/png;base64,AA", "s3://", "a\0"])(
    "refuses %j",
    (reference) => {
      for (const base of ["s3://bucket/sets/list.jsonl", "file:///list.jsonl"]) {
        if (base.startsWith("file") && reference === "../../a.jpg") continue; // the root's parent is the root
        expect(() => resolveUri(base, reference)).toThrow(expect.objectContaining({ code: "INVALID_URI" }));
      }
    },
  );
});

test("contains goes by folders", () => {
  expect(contains("s3://b/in", "s3://b/in/out")).toBe(true);
  expect(contains("s3://b/in/", "s3://b/in")).toBe(true);
  expect(contains("s3://b", "s3://b/x")).toBe(true);
  expect(contains("s3://b/in", "s3://b/in2/out")).toBe(false);
  expect(contains("s3://b/in/out", "s3://b/in")).toBe(false);
  expect(contains("s3://b", "s3://b2/x")).toBe(false);
  expect(contains("/data/in", "file:///data/in/out")).toBe(true);
  expect(contains("/data/in", "/data/in/../out")).toBe(false);
  expect(contains("/", "/data")).toBe(true);
  expect(contains("/data", "s3://data/x")).toBe(false);
});
