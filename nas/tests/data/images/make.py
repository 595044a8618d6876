"""Makes the pictures in this folder, and Pillow's reading of each JPEG as PNG beside it.

Needs Pillow (made with 13.0) and numpy. The pictures are small on purpose: a gradient with a few edges.
"""
import io

import numpy as np
from PIL import Image, ImageEnhance


def picture(h, w):
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    r = 255 * x / max(w - 1, 1)
    g = 127 + 120 * np.sin(x / 5) * np.cos(y / 4)
    b = np.where((x // 8 + y // 8) % 2 == 0, 220, 40)
    return Image.fromarray(np.stack([r, g, b], -1).astype(np.uint8), "RGB")


def save(name, image, reading="RGB", **options):
    image.save(f"{name}.jpg", **options)
    Image.open(f"{name}.jpg").convert(reading).save(f"{name}.expected.png", optimize=True)


rgb = picture(40, 56)
save("baseline", rgb, quality=90)
save("full-chroma", rgb, quality=95, subsampling=0)
save("progressive", rgb, quality=90, progressive=True)
save("gray", rgb.convert("L"), "L", quality=90)
save("cmyk", rgb.convert("CMYK"), quality=90)
exif = Image.Exif()
exif[0x0112] = 6  # rotate by 90 degrees to display
save("rotated", rgb, quality=90, exif=exif)
save("one-pixel", picture(1, 1), quality=90)
Image.new("RGB", (30000, 1), (90, 140, 200)).save("strip.jpg", quality=30, optimize=True)

# Crop, then resize to 24 x 24; whole image with the shorter side at 32 (44 x 32).
rgb.crop((5, 3, 45, 33)).resize((24, 24), Image.BILINEAR).save("crop-5-3-40-30-to-24.png", optimize=True)
rgb.resize((44, 32), Image.BILINEAR).save("whole-to-44x32.png", optimize=True)
rgb.save("source.png", optimize=True)

# Colour changes, by name and factor.
for name, kind in ("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color):
    for factor in 0.6, 1.4:
        kind(rgb).enhance(factor).save(f"{name}-{factor}.png", optimize=True)

# Adam7 is not something Pillow writes; these are what it does write.
rgb.quantize(16).save("palette.png", optimize=True)
rgb.quantize(16).convert("RGB").save("palette.expected.png", optimize=True)
rgb.convert("1").save("bilevel.png", optimize=True)
rgb.convert("1").convert("L").save("bilevel.expected.png", optimize=True)
