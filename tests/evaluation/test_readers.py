import json

import numpy as np
import pytest
from support.evaluation_factories import box_of, dataset, encoded, persons, standing, write_coco, write_parquet

from posebatch.core.errors import InputError
from posebatch.evaluation.labels import xywh_to_xyxy, xyxy_to_xywh
from posebatch.evaluation.readers import read_dataset, read_detections

PIXELS = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
JOINTS = np.stack([np.arange(17), np.arange(17), np.tile([0, 1, 2], 6)[:17]], axis=1).astype(float)
ROW = {"image": encoded(PIXELS), "width": 40, "height": 30, "boxes": [1.0, 2.0, 10.0, 20.0]}


def edited(path, change):
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))
    return path


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path, [(PIXELS, [[1, 2, 10, 20]], [JOINTS]), (PIXELS, [], [])])


def test_xywh_to_xyxy_is_inverted():
    boxes = np.array([[0.0, 0, 640, 480], [10.5, 3, 2, 1]])
    # a box around the whole of a 640 x 480 frame has its edges half a pixel outside the outermost centres
    np.testing.assert_array_equal(xywh_to_xyxy(boxes)[0], [-0.5, -0.5, 639.5, 479.5])
    np.testing.assert_allclose(xyxy_to_xywh(xywh_to_xyxy(boxes)), boxes)
    assert xyxy_to_xywh(np.zeros((0, 4))).shape == (0, 4)


def test_read_dataset_reads_coco(coco):
    data = read_dataset(coco, coco.parent)
    assert (data.name, len(data.images), data.num_persons, data.num_posed) == ("labels.json", 2, 1, 1)
    assert data.has_keypoints
    first, empty = data.images
    np.testing.assert_array_equal(first.pixels(), PIXELS)
    np.testing.assert_array_equal(first.persons.bbox_xyxy, [[0.5, 1.5, 10.5, 21.5]])
    np.testing.assert_array_equal(first.persons.keypoints, [JOINTS])
    assert (first.image_id, list(first.persons.area), list(first.persons.ignored)) == (0, [100.0], [False])
    assert len(empty.persons) == 0


def test_read_dataset_keeps_persons_and_crowds_of_coco(coco):
    def change(body):
        body["categories"].insert(0, {"id": 5, "name": "dog"})
        body["annotations"].append({**body["annotations"][0], "id": 2, "category_id": 5})
        body["annotations"].append({**body["annotations"][0], "id": 3, "iscrowd": 1})

    data = read_dataset(edited(coco, change), coco.parent)
    assert list(data.images[0].persons.ignored) == [False, True]
    assert (data.num_persons, data.num_posed) == (1, 1)


def test_read_dataset_reads_coco_without_areas_and_keypoints(coco):
    def change(body):
        for annotation in body["annotations"]:
            del annotation["area"], annotation["keypoints"], annotation["iscrowd"]

    data = read_dataset(edited(coco, change), coco.parent)
    assert not data.has_keypoints
    assert (data.num_persons, data.num_posed) == (1, 0)
    assert data.images[0].persons.area == pytest.approx([0.53 * 200])


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("images"),
        lambda body: body.update(categories=[{"id": 1, "name": "dog"}]),
        lambda body: body["annotations"][0].pop("bbox"),
        lambda body: body["annotations"][0].update(bbox=[1, 2, 3]),
        lambda body: body["annotations"][0].update(keypoints=[1, 2, 3]),
        lambda body: body["annotations"].append({**body["annotations"][0], "bbox": [1, 2]}),
        lambda body: body["images"][0].update(width=None),
    ],
)
def test_read_dataset_refuses_json_that_is_not_coco(coco, change):
    with pytest.raises(InputError, match=r"labels\.json: not COCO's annotation format"):
        read_dataset(edited(coco, change), coco.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "cannot be read as JSON"),
        (b"\x89PNG", "cannot be read as JSON"),
        (b"[]", "not COCO"),
    ],
)
def test_read_dataset_refuses_unreadable_files(tmp_path, content, message):
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_dataset(path, tmp_path)


def test_read_dataset_counts_missing_images(coco):
    (coco.parent / "000000000001.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images .* the first is 000000000001\.png"):
        read_dataset(coco, coco.parent)


def test_read_dataset_needs_a_folder_for_json(coco):
    with pytest.raises(InputError, match="--images FOLDER"):
        read_dataset(coco)


@pytest.mark.parametrize(
    ("content", "message"), [(b"no image", "cannot be decoded"), (encoded(PIXELS[:, :20]), "20 x 30 .* 40 x 30")]
)
def test_labelled_image_refuses_other_images(coco, content, message):
    (coco.parent / "000000000000.png").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_dataset(coco, coco.parent).images[0].pixels()


def test_read_dataset_reads_parquet(tmp_path):
    full = {
        "keypoints": JOINTS.ravel().tolist() * 2,
        "boxes": [1.0, 2.0, 10.0, 20.0, 5.0, 5.0, 10.0, 10.0],
        "area": [50.0, 60.0],
        "ignore": [False, True],
        "image_id": 139,
        "file_name": "139.jpg",
    }
    data = read_dataset(write_parquet(tmp_path / "a.parquet", [{**ROW, **full}]))
    (image,) = data.images
    assert (data.has_keypoints, data.num_persons, data.num_posed) == (True, 1, 1)
    assert (image.name, image.image_id) == ("139.jpg", 139)
    np.testing.assert_array_equal(image.pixels(), PIXELS)
    np.testing.assert_array_equal(image.persons.keypoints[1], JOINTS)
    np.testing.assert_array_equal(image.persons.area, [50, 60])


def test_read_dataset_reads_parquet_with_boxes_alone(tmp_path):
    rows = [ROW, {**ROW, "boxes": []}]
    data = read_dataset(write_parquet(tmp_path / "a.parquet", rows))
    assert (data.has_keypoints, data.num_persons) == (False, 1)
    assert [image.image_id for image in data.images] == [0, 1]
    assert data.images[0].persons.area == pytest.approx([0.53 * 200])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": b"", "width": 1, "height": 1}], "has no column boxes"),
        ([{**ROW, "boxes": [1.0, 2.0, 3.0]}], "do not fit each other"),
        ([{**ROW, "keypoints": [1.0]}], "do not fit each other"),
        ([{**ROW, "ignore": [True, False]}], "do not fit each other"),
    ],
)
def test_read_dataset_refuses_inconsistent_parquet(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_dataset(write_parquet(tmp_path / "a.parquet", rows))


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), (b"", "cannot be read as Parquet")])
def test_read_dataset_refuses_files_that_are_no_parquet(tmp_path, content, message):
    path = tmp_path / "a.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_dataset(path)


def detection(**changes):
    return {"image_id": 11, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5, **changes}


DATA = dataset(persons(), persons([box_of()], [standing()]))  # images 10 and 11


@pytest.mark.parametrize(
    ("entries", "scores"),
    [
        ([], [[], []]),
        ([detection()], [[], [0.5]]),
        ([detection(), detection(score=0.75), detection(image_id=10)], [[0.5], [0.75, 0.5]]),
        ([detection(), detection(category_id=18), detection(image_id=99)], [[], [0.5]]),
    ],
)
def test_read_detections_ranks_boxes_by_image(tmp_path, entries, scores):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(entries))
    detections = read_detections(path, DATA)
    assert [list(image.scores) for image in detections] == scores
    for image in detections:
        assert image.bbox_xyxy.tolist() == [[9.5, 19.5, 39.5, 59.5]] * len(image)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not COCO's result format"),
        ('{"annotations": []}', "not COCO's result format"),
        ('[{"image_id": 11}]', "not COCO's result format"),
        (json.dumps([detection(bbox=[1, 2, 3])]), "not COCO's result format"),
        (json.dumps([detection(score="high")]), "not COCO's result format"),
        (json.dumps([detection(image_id=5)]), "none of its 1 images is in made"),
        ("nothing", "cannot be read as JSON"),
    ],
)
def test_read_detections_refuses_other_files(tmp_path, content, message):
    path = tmp_path / "found.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_detections(path, DATA)
