/** The pictures of a job's rows, small. */
import { CapfleetError } from "@capfleet/shared/contract";
import type { FastifyReply } from "fastify";
import pLimit from "p-limit";
import * as z from "zod";
import { RecordImages } from "../../pictures/records.ts";
import { thumbnailOf } from "../../pictures/thumbnail.ts";
import { checkReadable } from "../access.ts";
import type { Api, Server } from "../api.ts";
import { POSITION } from "../row-pages.ts";
import { errorResponses, fields } from "../schemas.ts";

/** Each holds a file and its pixels. */
const AT_ONCE = 3;
/** From the first byte that is asked for to the picture; what waits for its turn does not count. */
const TIME_MS = 15_000;
const SIDES = { least: 16, most: 2_048, usual: 320 };
const HEADERS = {
  // A picture may be replaced, and a key revoked.
  "cache-control": "private, max-age=3600",
  vary: "authorization",
  "x-content-type-options": "nosniff",
  "content-security-policy": "default-src 'none'; sandbox",
  "cross-origin-resource-policy": "same-origin",
};

export function thumbnailRoutes(server: Server, { views, stores }: Api): void {
  const images = new RecordImages();
  const turns = pLimit(AT_ONCE);

  server.get("/v1/jobs/:id/thumbnail", {
    schema: {
      summary: "The picture of a row, small",
      description:
        "A JPEG that fits into a square of `size` pixels. For a key the picture must be below one of its read prefixes; `https://` images as the operator allows.",
      tags: ["jobs"],
      params: z.object({ id: z.string().meta({ description: "The job's id" }) }),
      querystring: fields({
        position: z.string().regex(POSITION, "must be one of a page's positions"),
        size: z.coerce.number().int().min(SIDES.least).max(SIDES.most).default(SIDES.usual),
      }),
      response: {
        200: { description: "A picture", content: { "image/jpeg": { schema: z.string() } } },
        ...errorResponses(404, 413, 422, 504),
      },
    },
    handler: async ({ params: { id }, query: { position, size }, caller }, reply) => {
      const { store } = await views.find(id, caller!);
      const [, shard, line] = POSITION.exec(position)!;
      const source = await images.find(id, store, Number(shard), Number(line));
      checkReadable(caller!, source.image!);
      const gone = goneOf(reply);
      const jpeg = await turns(async () => {
        if (gone.aborted) return null;
        const late = AbortSignal.timeout(TIME_MS);
        return thumbnailOf(source, size, stores, AbortSignal.any([gone, late])).catch((thrown: unknown) => {
          if (gone.aborted) return null;
          if (!late.aborted) throw thrown;
          throw new CapfleetError("THUMBNAIL_TIMEOUT", `${source.image} was not there in ${TIME_MS / 1_000} s`);
        });
      });
      if (jpeg === null) return reply.hijack();
      return reply
        .headers(HEADERS)
        .type("image/jpeg")
        .send(jpeg as never);
    },
  });
}

/** Aborted when nobody waits for the answer any more. */
function goneOf(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once("close", () => gone.abort());
  return gone.signal;
}
