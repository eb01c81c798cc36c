"""What the paper's code and ours are both given: frames, boxes, heatmaps, persons and weights, each by a rule.

So the golden file holds results alone, and no weight. Whole numbers and `numpy.random.RandomState`, whose stream never
changes, make the same values on every machine.
"""

import math
import zlib

import numpy as np

FRAME_WH = (320, 240)
NUM_FRAMES = 2

CROP_WH = (192, 256)
"""The paper's smaller input, for what is cheap."""
NETWORK_WH = (96, 128)
"""A small input for what is dear: the networks. Wider or narrower, they run the same code."""
RESNETS = (18, 50, 101, 152)
END_TO_END_RESNET = 18

KPT_THR = 0.2
OKS_THR = 0.9

# x, y, width, height in frame pixels: tall, wide, square, tiny, over the border, far outside, no area
GEOMETRY_BOXES = np.array(
    [
        *((100.3, 40.7, 60.2, 150.9), (20.1, 60.4, 200.8, 80.3), (50.5, 50.5, 90.0, 90.0), (150, 100, 3.2, 2.1)),
        *((-30.6, -50.2, 120.4, 210.7), (250.9, 180.3, 140.2, 120.6), (-500, -400, 100, 90), (75.2, 31.9, 0, 60)),
        *((10, 20, 75, 100), (1800.7, 950.2, 90.4, 130.1)),
    ]
)

# Crops of NETWORK_WH whose pixels lie on quarter pixels of the frame: centre and width of a pixel. With levels that are
# multiples of 16, bilinear interpolation there gives whole levels, so OpenCV, which rounds positions to 1/32 pixel and
# results to whole levels, rounds nothing, and what follows must agree to the last keypoint.
_QUARTER_PIXEL_CROPS = [
    *((120, 110, 1), (60.25, 80.5, 1), (200.5, 150.75, 0.5), (160, 120, 1.75), (30.75, 200.25, 2.25), (300, 60, 3)),
    *((230.25, 90, 0.75), (90.5, 140.5, 1.25)),
]
PERSON_BOXES = np.array([(x - 38.4 * p, y - 51.2 * p, 76.8 * p, 102.4 * p) for x, y, p in _QUARTER_PIXEL_CROPS])
"""x, y, width, height; times 1.25 they are the crops above."""

PERSONS = [(number, box, 0.95 - 0.03 * rank) for number in range(NUM_FRAMES) for rank, box in enumerate(PERSON_BOXES)]
"""Frame, box and box score of every person that goes through everything."""


def frame(number: int) -> np.ndarray:
    """A coloured pattern of triangle waves in levels that are multiples of 16: (height, width, 3) uint8 RGB."""
    width, height = FRAME_WH
    y, x = np.mgrid[:height, :width]
    channels = []
    for channel in range(3):
        period = 90 + 22 * channel + 13 * number
        slanted = np.abs((2 * x + (channel + 1) * y + 31 * number) % (2 * period) - period) * 255 // period
        crossed = np.abs((3 * y - (2 - channel) * x + 17 * number) % (2 * period + 40) - period - 20)
        channels.append((2 * slanted + crossed * 255 // (period + 20)) // 3 // 16 * 16)
    return np.stack(channels, axis=2).astype(np.uint8)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter or buffer of a network from its name: float32.

    Filters add up to nothing, so that what a network says hangs on the picture, however deep it is; the last
    normalisation of a block is small, so that values do not grow from block to block.
    """
    draw = np.random.RandomState(zlib.crc32(key.encode())).uniform
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    if key.endswith("running_var"):
        return draw(0.8, 1.2, shape).astype(np.float32)
    if key.endswith(("running_mean", "bias")):
        return draw(-0.1, 0.1, shape).astype(np.float32)
    if len(shape) == 1:
        return draw(0.2, 0.4, shape).astype(np.float32) if "bn3" in key else draw(0.8, 1.2, shape).astype(np.float32)
    deconvolution = key.startswith("deconv_layers")
    # one output pixel of a 4 x 4 deconvolution with stride 2 sees 2 x 2 of its taps
    fan_in = shape[0] * 4 if deconvolution else math.prod(shape[1:])
    values = draw(-1, 1, shape)
    values -= values.mean(axis=(0, 2, 3) if deconvolution else (1, 2, 3), keepdims=True)
    gain = 0.25 if key.startswith("final_layer") else 2.0
    return (values * math.sqrt(3 * gain / fan_in)).astype(np.float32)


def network_input() -> np.ndarray:
    """Normalised images: (2, 3, height, width) float32 of about unit variance."""
    width, height = NETWORK_WH
    crops = np.stack([frame(number)[10 : 10 + height, 20 : 20 + width] for number in range(2)])
    return ((crops / 255 - 0.45) / 0.225).astype(np.float32).transpose(0, 3, 1, 2)


def heatmaps() -> np.ndarray:
    """Maps to decode, for each of `GEOMETRY_BOXES`: (n, 17, 64, 48) float32.

    Smooth bumps anywhere, on the edges too, some negative everywhere, some flat.
    """
    width, height = CROP_WH[0] // 4, CROP_WH[1] // 4
    random = np.random.RandomState(7)
    n = len(GEOMETRY_BOXES)
    x, y = random.randint(0, width, (n, 17, 1, 1)), random.randint(0, height, (n, 17, 1, 1))
    x[0, :8, 0, 0], y[1, :8, 0, 0] = (0, 1, 2, 3, width - 1, width - 2, width - 3, 5), (0, 1, 2, 3, 63, 62, 61, 60)
    across, down = np.arange(width), np.arange(height)[:, None]
    bumps = 1.0 / (1 + (across - x) ** 2 + (down - y) ** 2)
    maps = bumps + random.uniform(0, 0.1, (n, 17, height, width))
    maps[2, :3] -= 2
    maps[2, 3] = 0
    maps[2, 4] = 0.25
    return maps.astype(np.float32)


def crowd() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Persons of one frame, some of them twice: keypoints (n, 17, 3) x, y, score; box scores (n,); areas (n,)."""
    random = np.random.RandomState(11)
    people = random.uniform(0, 300, (16, 17, 2))
    copies = np.concatenate([people, people + 0.5 * np.arange(16).reshape(16, 1, 1)])
    order = random.permutation(len(copies))
    keypoints = np.concatenate([copies, random.uniform(-0.1, 1, (len(copies), 17, 1))], axis=2)[order]
    keypoints[0, :, 2] *= 0.1  # nothing of this one is above the threshold
    return keypoints.astype(np.float32), random.uniform(0.1, 1, len(copies)), random.uniform(8_000, 40_000, len(copies))


def crop_positions() -> np.ndarray:
    """The pixels of a crop that the golden file holds: (1, n, 2) x, y, in row order."""
    x, y = np.meshgrid(np.arange(0, CROP_WH[0], 5), np.arange(0, CROP_WH[1], 7))
    return np.stack([x, y], axis=-1).reshape(1, -1, 2)
