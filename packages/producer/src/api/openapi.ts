/** /openapi.json, from the routes' schemas, and /docs, a page to browse it. */
import { CAPFLEET_VERSION } from "@capfleet/shared/contract";
import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import { jsonSchemaTransform, jsonSchemaTransformObject } from "fastify-type-provider-zod";
import type { Server } from "./api.ts";

/** The page loads what it needs from here, and nothing from elsewhere. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const COMPONENT = /"#\/components\/schemas\/([^"/]+)/g;

/** Before the routes that are to be described. */
export async function describeApi(server: Server): Promise<void> {
  await server.register(swagger, {
    openapi: {
      openapi: "3.1.1",
      info: {
        title: "capfleet",
        version: CAPFLEET_VERSION,
        description: "Labels images in bulk with BLIP and BLIP-2.",
      },
      components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
      security: [{ key: [] }],
    },
    transform: jsonSchemaTransform,
    transformObject: (document) => withoutUnused(jsonSchemaTransformObject(document)),
  });
  server.get("/openapi.json", { config: { scope: null }, schema: { hide: true } }, async (_, reply) =>
    reply.type("application/json").serializer(JSON.stringify).send(server.swagger()),
  );
  await server.register(async (docs) => {
    docs.addHook("onRoute", (route) => {
      route.config = { ...route.config, scope: null };
    });
    // The bar at the top is another project's, and a field for other documents.
    const theme = { css: [{ filename: "capfleet.css", content: ".swagger-ui .topbar { display: none }" }] };
    await docs.register(swaggerUi, { routePrefix: "/docs", staticCSP: POLICY, theme });
  });
}

/** Each schema stands there as one of requests and as one of answers; only those that are meant stay. */
function withoutUnused<T>(document: T): T {
  const { components, ...rest } = document as { components?: { schemas?: Record<string, unknown> } };
  const { schemas = {} } = components ?? {};
  const used = new Set<string>();
  const take = (part: unknown) => {
    for (const [, name] of JSON.stringify(part).matchAll(COMPONENT)) {
      if (used.has(name!)) continue;
      used.add(name!);
      take(schemas[name!] ?? null);
    }
  };
  take(rest);
  const kept = Object.fromEntries(Object.entries(schemas).filter(([name]) => used.has(name)));
  return { ...rest, components: { ...components, schemas: kept } } as T;
}
