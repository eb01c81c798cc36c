"""The factories of numbered videos."""

import os

import numpy as np
import pytest

from support.factories import frame_number, numbered_image, video_bytes


@pytest.mark.parametrize("size", [(128, 96), (64, 48), (96, 128), (1280, 720)])
def test_frame_number_reads_a_drawn_number_only_upright(size):
    for number in (0, 1, 255, 256, 12345, 65535):
        image = numbered_image(number, size)
        assert frame_number(image) == number
        for turned in (image[::-1], image[:, ::-1], np.rot90(image), np.rot90(image, 2), np.rot90(image, 3)):
            with pytest.raises(ValueError, match="no frame number"):
                frame_number(turned)


def test_encoding_av1_leaves_the_priority_of_the_process():
    assert video_bytes(frames=3, codec="libsvtav1", container="webm")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
