"""Draws nasty image files and asks PIL what a model should see of them.

    python make_reference.py

Needs Pillow (12, with AVIF) and numpy. Writes, beside this file,

    fixtures/images/<name>       one file for each rule of decode.ts
    fixtures/references/<name>.png   what PIL makes of it, at the size that the test decodes it to
    fixtures/samples/<name>.png      the same for the demo's images, at 96 x 96
    fixtures/refused/<name>      files that a worker must not open, though PIL or libvips could

A new case is a line in main(). The reference is transformers' BlipImageProcessorPil: convert("RGB"), then resize with
BICUBIC. Where decode.ts departs from it by rule (orientation, transparency, 16-bit grey), so does rgb() below.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageOps

HERE = Path(__file__).parent
IMAGES = HERE / "fixtures/images"
REFERENCES = HERE / "fixtures/references"
SAMPLES = HERE / "fixtures/samples"
REFUSED = HERE / "fixtures/refused"
DEMO = HERE / "../../../../test/demo/images"


def rgb(image):
    """What a model should see, before the resize."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # PIL clips 16-bit grey to 255; the rule is what PIL does to 16-bit RGB: the upper byte.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        # convert("RGB") drops alpha; the rule is white paper.
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def reference(path, out, size):
    with Image.open(path) as image:
        image.seek(0)
        pixels = rgb(image).resize(size, Image.Resampling.BICUBIC)
        pixels.save(out / f"{path.name}.png", optimize=True, icc_profile=None)


def picture(width, height):
    """Smooth colours, hard edges, fine lines, nothing symmetric."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    waves = [np.sin(9 * x * y + c) + np.cos(7 * x - 5 * y * c) for c in (0.5, 1.4, 2.6)]
    image = Image.fromarray((128 + 55 * np.stack(waves, -1)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    w, h = width, height
    draw.ellipse([w * 0.08, h * 0.1, w * 0.4, h * 0.6], fill=(220, 30, 40))
    draw.rectangle([w * 0.55, h * 0.15, w * 0.9, h * 0.35], fill=(20, 60, 200))
    draw.polygon([(w * 0.5, h * 0.9), (w * 0.7, h * 0.5), (w * 0.95, h * 0.8)], fill=(250, 220, 30))
    for i in range(8):
        draw.line([w * 0.05, h * (0.7 + i * 0.03), w * 0.45, h * (0.72 + i * 0.03)], fill=(0, 0, 0))
    return image


def alpha(width, height):
    """From clear to solid, left to right, with a hole."""
    mask = Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1)))
    ImageDraw.Draw(mask).ellipse([width * 0.6, height * 0.4, width * 0.8, height * 0.7], fill=0)
    return mask


def with_alpha(image):
    layered = image.convert("LA" if image.mode == "L" else "RGBA")
    layered.putalpha(alpha(*image.size))
    return layered


def png16(path, pixels):
    """PIL writes no 16-bit colour. `pixels`: uint16 [height, width, 1 grey | 2 grey, alpha | 3 RGB | 4 RGBA]."""
    height, width, channels = pixels.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def sixteen_bit(image):
    """Uses the lower byte as well."""
    eight = np.asarray(image).astype(np.uint16)
    return eight * 256 + np.arange(eight.size, dtype=np.uint16).reshape(eight.shape) * 37 % 256


def inks(image):
    """A separation with black generation, as from a press."""
    paper = 255 - np.asarray(image).astype(int)
    black = paper.min(-1, keepdims=True) * 7 // 10
    cmy = (paper - black) * 255 // (255 - black)
    return Image.fromarray(np.concatenate([cmy, black], -1).astype(np.uint8), mode="CMYK")


def adobe_marker(data):
    """(start, end) of the APP14 segment."""
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    return at, at + 16


def ycck(image):
    """A CMYK JPEG whose first three planes are YCbCr, and whose Adobe marker says so."""
    *cmy, black = inks(image).split()
    luma = Image.merge("RGB", cmy).convert("YCbCr").split()
    # PIL stores CMYK inverted, so the planes of YCbCr are inverted beforehand.
    planes = Image.merge("CMYK", [*(ImageOps.invert(plane) for plane in luma), black])
    out = io.BytesIO()
    planes.save(out, "JPEG", quality=92)
    data = bytearray(out.getvalue())
    data[adobe_marker(data)[1] - 1] = 2  # the transform: 0 CMYK, 2 YCCK
    return bytes(data)


def heic(image):
    """An AVIF whose header says that HEVC is inside, as telephones write it. Its pixels can't be decoded."""
    out = io.BytesIO()
    image.save(out, "AVIF")
    data = bytearray(out.getvalue().replace(b"av01", b"hvc1").replace(b"avif", b"heic"))
    # HEVCDecoderConfigurationRecord: main profile, 4:2:0, 8 bits, no parameter sets.
    record = bytes.fromhex("01 01 60000000 900000000000 5a f000 fc fd f8 f8 0000 0f 00")
    box = struct.pack(">I", 8 + len(record)) + b"hvcC" + record
    at = data.index(b"av1C") - 4
    (size,) = struct.unpack(">I", data[at : at + 4])
    data[at : at + size] = box
    for parent in (b"ipco", b"iprp", b"meta"):
        at = data.index(parent) - 4
        (size_before,) = struct.unpack(">I", data[at : at + 4])
        data[at : at + 4] = struct.pack(">I", size_before + len(box) - size)
    return bytes(data)


def swapped_profile():
    """An sRGB profile that takes red for green: who applies it, is seen to."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (tags,) = struct.unpack(">I", data[128:132])
    place = {bytes(data[at : at + 4]): at + 4 for at in range(132, 132 + 12 * tags, 12)}
    red, green = place[b"rXYZ"], place[b"gXYZ"]
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)


def oriented(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif.tobytes()}


def main():
    for folder in (IMAGES, REFERENCES, SAMPLES, REFUSED):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()

    p = picture(120, 88)
    grey = p.convert("L")
    second = ImageOps.invert(p)
    jpeg = {"quality": 92}

    # JPEG
    p.save(IMAGES / "plain.jpg", **jpeg)
    p.save(IMAGES / "progressive.jpg", progressive=True, **jpeg)
    p.save(IMAGES / "full-chroma.jpg", subsampling=0, **jpeg)
    grey.save(IMAGES / "grey.jpg", **jpeg)
    p.save(IMAGES / "profile.jpg", icc_profile=swapped_profile(), **jpeg)
    inks(p).save(IMAGES / "cmyk.jpg", **jpeg)
    inks(picture(800, 600)).save(IMAGES / "cmyk-large.jpg", quality=50)
    data = (IMAGES / "cmyk.jpg").read_bytes()
    start, end = adobe_marker(data)
    (IMAGES / "cmyk-without-adobe-marker.jpg").write_bytes(data[:start] + data[end:])
    (IMAGES / "ycck.jpg").write_bytes(ycck(p))
    for orientation in range(1, 9):
        p.save(IMAGES / f"orientation-{orientation}.jpg", quality=85, **oriented(p, orientation))
    picture(400, 110).save(IMAGES / "orientation-6-far.jpg", quality=85, **oriented(p, 6))

    # PNG
    p.save(IMAGES / "plain.png")
    grey.save(IMAGES / "grey.png")
    with_alpha(p).save(IMAGES / "alpha.png")
    with_alpha(grey).save(IMAGES / "grey-alpha.png")
    grey.convert("1").save(IMAGES / "one-bit.png")
    palette = p.quantize(64)
    palette.save(IMAGES / "palette.png")
    palette.save(IMAGES / "palette-transparent.png", transparency=bytes(range(0, 256, 4)))
    p.save(IMAGES / "transparent-colour.png", transparency=(220, 30, 40))
    p.save(IMAGES / "profile.png", icc_profile=swapped_profile())
    p.save(IMAGES / "orientation-5.png", **oriented(p, 5))
    p.save(IMAGES / "animated.png", save_all=True, append_images=[second])
    png16(IMAGES / "grey-16.png", sixteen_bit(grey)[..., None])
    png16(IMAGES / "rgb-16.png", sixteen_bit(p))
    png16(IMAGES / "rgba-16.png", np.concatenate([sixteen_bit(p), sixteen_bit(alpha(*p.size))[..., None]], -1))

    # WebP, GIF
    p.save(IMAGES / "plain.webp", quality=85)
    with_alpha(p).save(IMAGES / "alpha-lossless.webp", lossless=True)
    p.save(IMAGES / "animated.webp", save_all=True, append_images=[second], quality=85)
    p.save(IMAGES / "orientation-8.webp", quality=85, **oriented(p, 8))
    p.save(IMAGES / "animated.gif", save_all=True, append_images=[second])
    with_alpha(p).save(IMAGES / "transparent.gif")

    # TIFF
    p.save(IMAGES / "pages.tif", compression="tiff_lzw", save_all=True, append_images=[second])
    p.save(IMAGES / "jpeg.tif", compression="jpeg")
    grey.convert("1").save(IMAGES / "fax.tif", compression="group4")
    inks(p).save(IMAGES / "cmyk.tif", compression="tiff_deflate")
    with_alpha(p).save(IMAGES / "alpha.tif", compression="tiff_deflate")
    Image.fromarray(sixteen_bit(grey)).save(IMAGES / "grey-16.tif", compression="tiff_deflate")
    p.save(IMAGES / "orientation-3.tif", compression="tiff_deflate", tiffinfo={0x0112: 3})

    # AVIF
    full = {"quality": 85, "subsampling": "4:4:4"}
    p.save(IMAGES / "plain.avif", **full)
    with_alpha(p).save(IMAGES / "alpha.avif", **full)
    p.save(IMAGES / "orientation-6.avif", **full, **oriented(p, 6))
    p.save(IMAGES / "half-chroma.avif", quality=85, subsampling="4:2:0")

    # Sizes: an axis is left as it is, reduced a little or a lot, or enlarged, in every mix that matters.
    picture(64, 64).save(IMAGES / "size-exact.png")
    picture(1600, 1200).save(IMAGES / "size-large.jpg", quality=60)
    picture(1600, 1200).save(IMAGES / "size-large.webp", quality=60)
    picture(330, 260).save(IMAGES / "size-medium.webp", quality=60)
    picture(330, 260).save(IMAGES / "size-medium.jpg", quality=85)
    picture(400, 200).save(IMAGES / "size-far-and-near.jpg", quality=85)
    picture(220, 800).save(IMAGES / "size-near-and-far.jpg", quality=85)
    picture(50, 40).save(IMAGES / "size-small.png")
    picture(300, 40).save(IMAGES / "size-flat.png")
    picture(40, 800).save(IMAGES / "size-thin.jpg", **jpeg)
    picture(200, 140).save(IMAGES / "size-to-128x48.png")
    picture(2, 3).save(IMAGES / "size-tiny.png")
    Image.new("RGB", (1, 1), (200, 100, 50)).save(IMAGES / "size-one-pixel.png")

    # Other formats, and pixels that have no one way to 8 bits
    small = picture(16, 16)
    for ending in ("bmp", "ico", "jp2", "pdf", "ppm", "tga"):
        small.save(REFUSED / f"image.{ending}")
    square = '<title>A square</title><rect width="9" height="9"/>'
    (REFUSED / "image.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16">{square}</svg>')
    (REFUSED / "image.heic").write_bytes(heic(small))
    Image.fromarray(np.asarray(small.convert("L"), np.float32) / 255).save(REFUSED / "float.tif")
    Image.fromarray(np.asarray(small.convert("L"), np.int32) * 1000).save(REFUSED / "int32.tif")
    Image.merge("LAB", small.split()).save(REFUSED / "lab.tif")

    for path in sorted(IMAGES.iterdir()):
        reference(path, REFERENCES, (128, 48) if "128x48" in path.name else (64, 64))
    for path in sorted(DEMO.iterdir()):
        reference(path, SAMPLES, (96, 96))


main()
