"""Pictures for detectors: noise, and a drawn person."""

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torchvision.transforms.functional import gaussian_blur

DETECTOR_NAME = "ssdlite_mobilenet_v2_320"


def noise(n, height=120, width=200, seed=0):
    """Smooth noise: (n, height, width, 3) uint8."""
    coarse = torch.rand(n, 3, 6, 10, generator=torch.Generator().manual_seed(seed)) * 255
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255)
    return smooth.byte().permute(0, 2, 3, 1).contiguous()


def drawn_person(height=240, width=320):
    """Somebody in a red shirt, standing in the middle from 0.1 to 0.95 of the height: (1, height, width, 3) uint8."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / height, indexing="ij")
    x = (x - width / height / 2).abs()
    skin, hair, shirt, trousers = (205, 160, 130), (60, 40, 30), (150, 40, 40), (40, 45, 80)
    parts = [
        (y > 0.8, (110, 105, 95)),  # the ground
        ((y > 0.58) & (y < 0.95) & ((x - 0.045).abs() < 0.035), trousers),
        ((y > 0.27) & (y < 0.6) & (x < 0.085), shirt),
        ((y > 0.29) & (y < 0.58) & ((x - 0.105).abs() < 0.022), shirt),
        ((y > 0.56) & (y < 0.61) & ((x - 0.107).abs() < 0.02), skin),
        ((y > 0.22) & (y < 0.29) & (x < 0.03), skin),
        (((y - 0.17) / 0.075) ** 2 + (x / 0.055) ** 2 < 1, skin),
        ((((y - 0.145) / 0.065) ** 2 + (x / 0.06) ** 2 < 1) & (y < 0.15), hair),
    ]
    image = torch.tensor([170.0, 190.0, 150.0]).repeat(height, width, 1)
    for mask, colour in parts:
        image[mask] = torch.tensor(colour, dtype=torch.float32)
    grain = torch.randn(height, width, 3, generator=torch.Generator().manual_seed(0)) * 12
    return gaussian_blur((image + grain).permute(2, 0, 1), [7, 7]).permute(1, 2, 0).clamp(0, 255).byte()[None]
