/** The console: one page at `/`, and its files. What it shows it asks the API for, as its reader. */
import { CapfleetError } from "@capfleet/shared/contract";
import type { FastifyReply, FastifyRequest } from "fastify";
import * as z from "zod";
import type { Server } from "../api/api.ts";
import { type Asset, type Bundle, bundleConsole } from "./bundle.ts";

const BASE = "/console/";

/** Scripts, styles and answers from here alone; pictures also from the page's own memory; no text becomes markup. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

const HEADERS = {
  "content-security-policy": POLICY,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  vary: "accept-encoding",
};

export function consoleRoutes(server: Server): void {
  let bundling: Promise<Bundle> | null = null;
  const bundle = () => {
    bundling ??= bundleConsole(BASE).catch((thrown: unknown) => {
      bundling = null;
      throw thrown;
    });
    return bundling;
  };

  server.get("/", { config: { scope: null }, schema: { hide: true } }, async (request, reply) =>
    send((await bundle()).page, "no-cache", request, reply),
  );

  const params = z.object({ name: z.string() });
  server.get(`${BASE}:name`, { config: { scope: null }, schema: { hide: true, params } }, async (request, reply) => {
    const asset = (await bundle()).files.get(request.params.name);
    if (!asset) throw new CapfleetError("ROUTE_NOT_FOUND", "the console has no such file; load the page anew");
    return send(asset, "public, max-age=31536000, immutable", request, reply);
  });
}

function send(asset: Asset, caching: string, { headers }: FastifyRequest, reply: FastifyReply): FastifyReply {
  reply.headers({ ...HEADERS, "cache-control": caching, etag: asset.etag });
  if (headers["if-none-match"] === asset.etag) return reply.code(304).send();
  const accepted = String(headers["accept-encoding"] ?? "");
  const encoding = (["br", "gzip"] as const).find((name) => new RegExp(`\\b${name}\\b`).test(accepted));
  if (encoding) reply.header("content-encoding", encoding);
  return reply.type(asset.type).send(asset[encoding ?? "plain"]);
}
