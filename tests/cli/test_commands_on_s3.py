"""Commands that read videos, with the videos and the results in S3."""

import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.factories import encode_video
from support.s3_server import S3Server

from posebatch.cli import main
from posebatch.storage.open import open_store

pytestmark = [pytest.mark.s3, pytest.mark.slow]


@pytest.fixture
def archive(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A video with a portrait, as a file and in a bucket."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    asset = Path(__file__).parents[2] / "posebatch/demo/assets/eileen_collins.webp"
    portrait = np.asarray(Image.open(asset).convert("RGB").resize((240, 320)))
    encode_video(tmp_path / "a.mp4", frames=6, size=(240, 320), draw=lambda _: portrait)
    bucket = f"b{uuid.uuid4().hex}"
    s3_server.client().create_bucket(Bucket=bucket)
    s3_server.client().upload_file(str(tmp_path / "a.mp4"), bucket, "in/a.mp4")
    return tmp_path / "a.mp4", f"s3://{bucket}"


def test_show_draws_a_video_in_s3_as_it_draws_the_file(archive, tmp_path, s3_server, capsys):
    file, bucket = archive
    pictures = []
    for number, video in enumerate((str(file), f"{bucket}/in/a.mp4")):
        to = tmp_path / f"{number}.png"
        assert main(["show", video, "--frame", "4", "--to", str(to), "--endpoint-url", s3_server.endpoint_url]) == 0
        pictures.append(np.asarray(Image.open(to)))
        assert "person 0: box" in capsys.readouterr().out
    titles = 60  # the title names the video
    np.testing.assert_array_equal(pictures[0][titles:], pictures[1][titles:])


def test_models_compare_reads_videos_and_writes_its_report_in_s3(archive, s3_server, capsys):
    _, bucket = archive
    names = ["simplebaseline_mobilenet_v2_256x192_relabelled", "embedded"]
    options = ["--frames", "2", "--engine", "torch", "--precision", "fp32", "--endpoint-url", s3_server.endpoint_url]
    assert main(["models", "compare", *names, f"{bucket}/in/", "--report", f"{bucket}/new", *options]) == 0
    assert "2 frames of 1 video" in capsys.readouterr().out
    store = open_store(f"{bucket}/new", s3_server.endpoint_url)
    assert [listed.key for listed in store.list()] == ["report.html"]
    assert b"data:image/jpeg;base64," in store.read("report.html")
