/**
 * sharp, with libvips set up for decoding strangers' files. The settings are the whole process's, so everything that
 * decodes imports sharp from this file: the worker, and the producer for the pictures of a report.
 */
import sharp from "sharp";

// No image is decoded twice, so a cache only holds memory. It would not even be safe: libvips keys it by the buffer's
// address, and an address is used again for the next file.
sharp.cache(false);

// The threads of libvips inside one image. Parallelism comes from decoding many images at once, one libuv thread each
// (UV_THREADPOOL_SIZE); more than 1 here would make N decodes run N × cores threads, for the same throughput.
sharp.concurrency(1);

// An allow list: libvips also reads SVG, PDF, its own format, raw matrices and whatever a build adds (ImageMagick alone
// brings a hundred formats), none of which anybody should be able to hand to a worker. Only from memory: never a path.
sharp.block({ operation: ["VipsForeignLoad"] });
sharp.unblock({
  operation: ["Jpeg", "Png", "Webp", "Nsgif", "Tiff", "Heif"].map((format) => `VipsForeignLoad${format}Buffer`),
});

export default sharp;
