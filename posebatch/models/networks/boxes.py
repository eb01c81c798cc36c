"""Boxes of an SSD detector: anchors, decoding, non-maximum suppression in float64."""

from __future__ import annotations

import math

import torch

from posebatch.core.frames import Detections
from posebatch.models.networks.ssdlite import INPUT_SIZE, STRIDES
from posebatch.models.networks.vision import SSD, ImageList, nms

_MAX_CANDIDATES = 400
"""Most boxes of one frame that enter the non-maximum suppression, the best ones: torchvision's default for SSD."""


_MAX_LOG_SCALE = math.log(1000 / 16)
"""Logarithm of the greatest ratio between the sides of a box and of its anchor."""


_MIN_BOX_SIDE = 1.0
"""Pixels. Thinner boxes are dropped, also when the edge of the frame has made them thin."""


def anchor_boxes(ssd: SSD, input_size: int = INPUT_SIZE) -> torch.Tensor:
    """The default boxes (anchors, 4) as centre x, y, width, height in units of the frame.

    At an input size larger than the trained one there are more boxes, of the same sizes in pixels of the input.
    """
    trained, map_sides = trained_boxes(ssd)
    if input_size == INPUT_SIZE:
        return trained
    larger, first, device = [], 0, trained.device
    locations = zip(map_sides, STRIDES, ssd.anchor_generator.num_anchors_per_location(), strict=True)
    for map_side, stride, each in locations:
        sizes = INPUT_SIZE * trained[first : first + each, 2:]  # (each, 2) pixels, the same at every location
        first += map_side**2 * each
        # Each map samples every second location of the finer map, starting at the first. So the first location of the
        # two coarsest maps is that of the map of stride 64. At 320 the mean of their trained boxes lies there too.
        positions = torch.arange(-(-input_size // stride), device=device) * stride + min(stride, STRIDES[3]) / 2
        y, x = torch.meshgrid(positions, positions, indexing="ij")
        centres = torch.stack([x.flatten(), y.flatten()], dim=1)  # (locations, 2)
        larger.append(torch.cat([centres.repeat_interleave(each, dim=0), sizes.repeat(len(centres), 1)], dim=1))
    return torch.cat(larger) / input_size


def trained_boxes(ssd: SSD) -> tuple[torch.Tensor, list[int]]:
    """torchvision's default boxes at the trained size, in units of the frame, and the side of each feature map."""
    blank = torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE, device=next(ssd.parameters()).device)
    with torch.inference_mode():
        maps = list(ssd.backbone.eval()(blank).values())
    corners = ssd.anchor_generator(ImageList(blank, [(INPUT_SIZE, INPUT_SIZE)]), maps)[0] / INPUT_SIZE
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)
    return boxes, [feature_map.shape[-1] for feature_map in maps]


def best_candidates(scores: torch.Tensor, bbox_thr: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Select the boxes above the threshold, at most `_MAX_CANDIDATES` per image.

    Scores (n, anchors) -> image, anchor and score of each box, (candidates,) each. They are sorted by image, then by
    descending score, then by anchor.
    """
    image, anchor = (scores > bbox_thr).nonzero(as_tuple=True)
    score = scores[image, anchor]
    order = order_by_image_and_score(image, score)
    order = order[_rank_in_image(image[order], len(scores)) < _MAX_CANDIDATES]
    return image[order], anchor[order], score[order]


def decode_boxes(codes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Decode box codes with their anchors, (k, 4) each -> edges (k, 4) x1, y1, x2, y2 in units of the frame.

    Source: torchvision's ``BoxCoder`` with SSD's weights 10, 10, 5, 5, and its limit against overflow.
    """
    centre = anchors[:, :2] + codes[:, :2] / 10 * anchors[:, 2:]
    half = (codes[:, 2:] / 5).clamp(max=_MAX_LOG_SCALE).exp() * anchors[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)


def clip_to_frame(edges: torch.Tensor, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip edges (k, 4) to the frame; the mask (k,) marks the boxes that are not too thin."""
    limit = edges.new_tensor([width, height, width, height])
    clipped = edges.clamp(min=0).minimum(limit)
    return clipped, (clipped[:, 2:] - clipped[:, :2] >= _MIN_BOX_SIDE).all(dim=1)


def nms_per_image(edges: torch.Tensor, score: torch.Tensor, image: torch.Tensor, nms_thr: float) -> torch.Tensor:
    """Indices of the boxes that survive non-maximum suppression within their own image, ascending.

    The images are laid side by side for one call. The sums are exact in float64, so the offset of an image does not
    change overlaps. torchvision's ``batched_nms`` uses float32, where the offset can change them.
    """
    if len(edges) == 0:
        return image
    side_by_side = edges.double() + (image * (edges.max().double() + 1))[:, None]
    return nms(side_by_side, score.double(), nms_thr).sort().values


def order_by_image_and_score(image: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """The permutation that sorts by image, then by descending score; equal scores keep their order."""
    by_score = score.argsort(descending=True, stable=True)
    return by_score[image[by_score].argsort(stable=True)]


def _rank_in_image(image: torch.Tensor, num_images: int) -> torch.Tensor:
    """Index of each entry within its image; ``image`` must be ascending."""
    counts = image.bincount(minlength=num_images)
    starts = counts.cumsum(0) - counts
    return torch.arange(len(image), device=image.device) - starts[image]


def split_by_image(
    image: torch.Tensor, edges: torch.Tensor, score: torch.Tensor, num_images: int, max_persons: int
) -> list[Detections]:
    """Split boxes sorted by image and descending score: the best of each image, in pixel coordinates."""
    kept = _rank_in_image(image, num_images) < max_persons
    counts = image[kept].bincount(minlength=num_images).tolist()
    left_out = image[~kept].bincount(minlength=num_images).tolist()
    boxes, scores = torch.split((edges[kept] - 0.5).cpu(), counts), torch.split(score[kept].cpu(), counts)
    parts = zip(boxes, scores, left_out, strict=True)
    return [Detections(box.numpy(), score.numpy(), more) for box, score, more in parts]
