/** Requests made from an OpenAPI document, as it asks and as it does not, and answers held against it. From a seed. */
import * as z from "zod";

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export interface Schema {
  [keyword: string]: Json;
}

export interface Parameter {
  name: string;
  in: "query" | "path" | "header";
  required?: boolean;
  schema: Schema;
}

export interface Operation {
  method: string;
  path: string;
  parameters: Parameter[];
  body: Schema | null;
  /** By status and content type. */
  answers: Record<string, Record<string, Schema>>;
}

export interface OpenApi {
  openapi: string;
  paths: Record<
    string,
    Record<
      string,
      {
        parameters?: Parameter[];
        requestBody?: { content: Record<string, { schema: Schema }> };
        responses: Record<string, { content?: Record<string, { schema: Schema }> }>;
      }
    >
  >;
  components: { schemas: Record<string, Schema> };
}

export function operationsOf({ paths }: OpenApi): Operation[] {
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { parameters = [], requestBody, responses }]) => ({
      method: method.toUpperCase(),
      path,
      parameters,
      body: requestBody?.content["application/json"]?.schema ?? null,
      answers: Object.fromEntries(
        Object.entries(responses).map(([status, { content = {} }]) => [
          status,
          Object.fromEntries(Object.entries(content).map(([type, { schema }]) => [type, schema])),
        ]),
      ),
    })),
  );
}

/** A JSON schema of the document, as one that stands alone. */
export function validatorOf(schema: Schema, { components }: OpenApi): z.ZodType {
  const moved = JSON.stringify({ ...schema, $defs: components.schemas }).replaceAll(
    "#/components/schemas/",
    "#/$defs/",
  );
  return z.fromJSONSchema(JSON.parse(moved) as never);
}

/** Values that break servers. */
const HOSTILE: Json[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e308,
  "",
  " ",
  "\0",
  "\ud800",
  "😀".repeat(300),
  "x".repeat(5_000),
  "../../../etc/passwd",
  "%2e%2e%2f",
  "file:///etc/%00",
  "file://host/share",
  "s3://",
  "https://[::1",
  "/dev/zero",
  "/proc/self/environ",
  "a/{0..99999999}.tar",
  "{9..1}.tar",
  "__proto__",
  "constructor",
  "$" + "{7*7}",
  "'; drop table jobs; --",
  [],
  {},
  [null],
  [[[[]]]],
  { constructor: { prototype: 1 } },
];

export class Generator {
  readonly #document: OpenApi;
  #state: number;

  constructor(document: OpenApi, seed: number) {
    this.#document = document;
    this.#state = seed;
  }

  /** From 0 to below 1 (mulberry32). */
  random(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(n: number): number {
    return Math.floor(this.random() * n);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** A value of the schema; with `spoil`, at times one that is not. */
  value(schema: Schema, spoil = 0): Json {
    if (this.random() < spoil) return this.pick(HOSTILE);
    if (typeof schema.$ref === "string") {
      return this.value(this.#document.components.schemas[schema.$ref.split("/").at(-1)!]!, spoil);
    }
    if (Array.isArray(schema.enum)) return this.pick(schema.enum);
    if (schema.const !== undefined) return schema.const;
    if (Array.isArray(schema.anyOf)) return this.value(this.pick(schema.anyOf) as Schema, spoil);
    if (schema.type === "object") return this.#object(schema, spoil);
    if (schema.type === "array") {
      const { minItems = 0, items = {} } = schema as { minItems?: number; items?: Schema };
      return Array.from({ length: minItems + this.below(3) }, () => this.value(items, spoil));
    }
    if (schema.type === "boolean") return this.random() < 0.5;
    if (schema.type === "integer" || schema.type === "number") return this.#number(schema);
    if (schema.type === "string") return this.#string(schema);
    return this.pick(HOSTILE);
  }

  #object(schema: Schema, spoil: number): Json {
    const required = new Set(schema.required as string[] | undefined);
    const made: Record<string, Json> = {};
    for (const [name, each] of Object.entries((schema.properties ?? {}) as Record<string, Schema>)) {
      const isThere = required.has(name) ? this.random() >= spoil / 4 : this.random() < 0.12;
      if (isThere) made[name] = this.value(each, spoil);
    }
    if (this.random() < spoil / 2) made[this.pick(["extra", "__proto__x", "toString", ""])] = this.pick(HOSTILE);
    return made;
  }

  #number(schema: Schema): number {
    const { minimum, exclusiveMinimum, maximum } = schema as Record<string, number | undefined>;
    const low = minimum ?? exclusiveMinimum ?? -1_000;
    const high = Math.min(maximum ?? 1_000, low + 10);
    if (schema.type === "integer") return Math.ceil(low) + this.below(Math.max(1, Math.floor(high - low)));
    return low + (high - low) * (1 - this.random());
  }

  #string(schema: Schema): string {
    const {
      minLength = 1,
      pattern,
      examples,
    } = schema as { minLength?: number; pattern?: string; examples?: string[] };
    if (Array.isArray(examples)) return this.pick(examples);
    if (pattern?.includes("job_")) return "job_01K9ZJ5W3N8Q4T6V7X8Y9Z0A1B";
    if (pattern?.includes("\\d")) return `${this.below(20)}.${this.below(20)}`;
    return this.pick(["demo-caption", "demo-itm", "text", "a {question}", "ünïcode ✓"]).padEnd(minLength, "x");
  }
}
