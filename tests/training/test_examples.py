"""Reading labelled persons and pictures: values, refusals, and a teacher's keypoints."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.training_factories import drawn_persons, encoded, targets, write_coco, write_persons, write_scenes

from posebatch.core.errors import InputError
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.training.detector_examples import SceneTargets, join, read_person_crops, read_scenes
from posebatch.training.pose_examples import (
    ABSENT_WEIGHT,
    AGREEMENT,
    TEACHER_SEES,
    PoseTargets,
    blend_labels,
    read_pose_examples,
)

BOX = np.array([0.0, 0, 300, 400])
REACH = AGREEMENT * 500
PICTURE = encoded(np.zeros((8, 8, 3), np.uint8))
PERSON = {"image": PICTURE, "bbox": [0.0, 0, 8, 8], "keypoints": [4.0, 4.0, 2.0] * NUM_KEYPOINTS}


def parquet(folder, rows, schema=None):
    path = folder / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def changed_coco(folder, change):
    path, images = write_coco(folder)
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))
    return path, images


# Persons


def test_read_pose_examples_refuses_an_empty_file(tmp_path):
    empty = pa.schema([("image", pa.binary()), ("bbox", pa.list_(pa.float64())), ("keypoints", pa.list_(pa.float64()))])
    with pytest.raises(InputError, match=r"data\.parquet: no person with a labelled keypoint"):
        read_pose_examples(parquet(tmp_path, [], empty))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**PERSON, "keypoints": [0.0] * 51}], "no person with a labelled keypoint"),
        ([{"image": PICTURE, "keypoints": PERSON["keypoints"]}], "image, bbox and keypoints .*bbox"),
        ([{"image": PICTURE, "bbox": PERSON["bbox"]}], "image, bbox and keypoints .*keypoints"),
        ([{"bbox": PERSON["bbox"], "keypoints": PERSON["keypoints"]}], "image, bbox and keypoints .*image"),
        ([{**PERSON, "bbox": [0.0, 0, 8]}], "image, bbox and keypoints"),
        ([{**PERSON, "bbox": [1.0, 1, 0, 5]}], "must have an area"),
        ([{**PERSON, "keypoints": [1.0] * 42}], "image, bbox and keypoints"),
    ],
)
def test_read_pose_examples_refuses_incomplete_parquet(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_pose_examples(parquet(tmp_path, rows))


@pytest.mark.parametrize("read", [read_pose_examples, read_scenes])
def test_readers_refuse_other_files(tmp_path, read):
    with pytest.raises(InputError, match=r"nowhere\.parquet: no such file"):
        read(tmp_path / "nowhere.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match=r"text\.parquet: cannot be read as Parquet"):
        read(tmp_path / "text.parquet")
    (tmp_path / "text.json").write_text("no JSON")
    with pytest.raises(InputError, match=r"text\.json: COCO annotations name image files.*--images"):
        read(tmp_path / "text.json")
    with pytest.raises(InputError, match=r"text\.json: cannot be read as COCO"):
        read(tmp_path / "text.json", tmp_path)


def test_read_pose_examples_refuses_coco_without_keypoints(tmp_path):
    path, images = changed_coco(tmp_path, lambda body: [person.pop("keypoints") for person in body["annotations"]])
    with pytest.raises(InputError, match=r"labels\.json: no person with a labelled keypoint"):
        read_pose_examples(path, images)


@pytest.mark.parametrize("read", [read_pose_examples, read_scenes])
def test_readers_refuse_missing_images(tmp_path, read):
    path, images = write_coco(tmp_path)
    (images / "2.png").unlink()
    with pytest.raises(InputError, match=r"1 of its images are not there, the first is .*2\.png"):
        read(path, images)


def test_read_pose_examples_skips_unusable_annotations(tmp_path):
    def spoil(body):
        body["annotations"][0]["iscrowd"] = 1
        body["annotations"][1]["keypoints"] = [0] * 51
        body["annotations"][2]["bbox"][2] = 0

    path, images = changed_coco(tmp_path, spoil)
    examples = read_pose_examples(path, images)
    assert len(examples) == 1
    assert examples.read_image(0) == (images / "3.png").read_bytes()


def test_read_pose_examples_agrees_on_parquet_and_coco(tmp_path):
    from_parquet = read_pose_examples(write_persons(tmp_path / "data.parquet"))
    from_coco = read_pose_examples(*write_coco(tmp_path))
    assert len(from_parquet) == len(from_coco) == 4
    for i, (target, same) in enumerate(zip(from_parquet.targets, from_coco.targets, strict=True)):
        for name in vars(target):
            assert np.array_equal(getattr(target, name), getattr(same, name)), name
        assert from_parquet.read_image(i) == from_coco.read_image(i)


def test_read_pose_examples_moves_boxes_and_no_keypoints_to_pixel_centres(tmp_path):
    [first, *_] = read_pose_examples(write_persons(tmp_path / "data.parquet")).targets
    _, (x, y, width, height), keypoints = drawn_persons()[0]
    assert first.bbox_xyxy == pytest.approx([x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5])
    labelled = keypoints[:, 2] > 0
    assert first.keypoints[labelled] == pytest.approx(keypoints[labelled, :2])


@pytest.mark.parametrize(
    ("label", "teacher", "point", "weight", "present"),
    [
        # x, visibility; x, score -> where, how much, whether there is anything
        ((0, 0), None, None, 0, False),
        ((50, 1), None, 50, 1, True),
        ((50, 2), (200, 0.1), 50, 1, True),  # the teacher sees nothing
        ((50, 2), (50 + 0.9 * REACH, 0.9), 50 + 0.45 * REACH, 1, True),  # both agree
        ((50, 2), (50 + 1.1 * REACH, 0.9), 50, 1, True),  # both disagree
        ((0, 0), (200, 0.7), 200, 0.7, True),  # the teacher alone
        ((0, 0), (200, 1.3), 200, 1, True),
        ((0, 0), (200, TEACHER_SEES), 200, TEACHER_SEES, True),
        ((0, 0), (200, TEACHER_SEES - 0.01), None, ABSENT_WEIGHT, False),  # neither
    ],
)
def test_blend_labels_weighs_label_and_teacher(label, teacher, point, weight, present):
    labels = np.zeros((NUM_KEYPOINTS, 3))
    labels[3] = label[0], 10, label[1]
    seen = None
    if teacher is not None:
        seen = np.zeros((NUM_KEYPOINTS, 3))
        seen[3] = teacher[0], 10, teacher[1]
    blended = blend_labels(BOX, labels, seen)
    assert blended.weights[3] == pytest.approx(weight)
    assert blended.present[3] == present
    if point is not None:
        assert blended.keypoints[3] == pytest.approx([point, 10])
    assert labels[3, 0] == label[0], "the labels themselves stay"


def test_read_pose_examples_uses_teacher_keypoints(tmp_path):
    teacher = [30.0, 40.0, 0.8] * NUM_KEYPOINTS
    path = write_persons(tmp_path / "data.parquet", keypoints=[0.0] * 51, teacher_keypoints=teacher)
    [first, *_] = read_pose_examples(path).targets
    assert first.weights == pytest.approx(np.full(NUM_KEYPOINTS, 0.8))
    assert first.keypoints == pytest.approx(np.tile([30.0, 40.0], (NUM_KEYPOINTS, 1)))


def labels_file(folder, ids, x):
    rows = [{"id": name, "keypoints": [x, 5.0, 2.0] * NUM_KEYPOINTS, "teacher_keypoints": [x, 5.0, 0.9] * NUM_KEYPOINTS}
            for name in ids]  # fmt: skip
    path = folder / "labels.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_read_pose_examples_takes_keypoints_from_a_second_file(tmp_path):
    persons = parquet(tmp_path, [{**PERSON, "id": "a"}, {**PERSON, "id": "b"}])
    plain = read_pose_examples(persons)
    relabelled = read_pose_examples(persons, labels=labels_file(tmp_path, ["a", "b"], 7.0))
    assert plain.targets[0].keypoints[0].tolist() == [4, 4]
    assert relabelled.targets[0].keypoints[0].tolist() == [7, 5]
    assert relabelled.read_image(1) == plain.read_image(1)


@pytest.mark.parametrize("ids", [[], ["a"], ["b", "a"], ["a", "c"]])
def test_read_pose_examples_refuses_labels_of_other_persons(tmp_path, ids):
    persons = parquet(tmp_path, [{**PERSON, "id": "a"}, {**PERSON, "id": "b"}])
    with pytest.raises(InputError, match=r"labels\.parquet: .*id"):
        read_pose_examples(persons, labels=labels_file(tmp_path, ids, 7.0))


def test_read_pose_examples_refuses_labels_beside_coco(tmp_path):
    path, images = write_coco(tmp_path)
    with pytest.raises(InputError, match="leave out --labels"):
        read_pose_examples(path, images, labels=labels_file(tmp_path, ["a"], 7.0))


def test_read_pose_examples_repeats_sources(tmp_path):
    path = write_persons(tmp_path / "data.parquet", 2)
    plain, repeated = read_pose_examples(path), read_pose_examples(path, repeats={"drawn": 3})
    assert len(repeated) == 6
    assert [repeated.read_image(i) for i in (0, 1, 2)] == [plain.read_image(0)] * 3
    assert np.array_equal(repeated.targets[5].keypoints, plain.targets[1].keypoints)
    with pytest.raises(InputError, match="no person in it has the source gym"):
        read_pose_examples(path, repeats={"gym": 2})


def test_targets_check_their_shapes():
    with pytest.raises(ValueError, match="weights must be"):
        targets(weights=np.ones(16))
    with pytest.raises(ValueError, match="must have an area"):
        targets(box=(5, 5, 5, 9))
    with pytest.raises(ValueError, match="boxes must be"):
        SceneTargets(np.zeros((2, 4)), np.zeros(1, bool))
    assert isinstance(targets(), PoseTargets)


# Pictures


def scene_rows(**columns):
    return [{"image": PICTURE, "boxes": [1.0, 2, 3, 4, 0, 0, 8, 8], **columns}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": PICTURE, "boxes": [1.0]}], "image and boxes"),
        ([{"image": PICTURE}], "image and boxes .*boxes"),
        ([{"boxes": [1.0, 2, 3, 4]}], "image and boxes .*image"),
        (scene_rows(ignore=[True, True]), "no person is marked"),
        (scene_rows(ignore=[True, False, True]), "image and boxes"),  # three marks for two boxes
    ],
)
def test_read_scenes_refuses_incomplete_parquet(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_scenes(parquet(tmp_path, rows))


def test_read_scenes_joins_both_columns_of_ignored_boxes(tmp_path):
    [scene] = read_scenes(parquet(tmp_path, scene_rows(ignore=[False, False], iscrowd=[False, True]))).targets
    assert scene.boxes_xyxy.tolist() == [[1, 2, 4, 6], [0, 0, 8, 8]]
    assert scene.ignore.tolist() == [False, True]


def test_read_scenes_reads_coco(tmp_path):
    def alter(body):
        body["annotations"][0]["iscrowd"] = 1
        body["annotations"][1]["category_id"] = 2

    scenes = read_scenes(*changed_coco(tmp_path, alter))
    assert [scene.ignore.tolist() for scene in scenes.targets] == [[True], [], [False], [False]]
    _, (x, y, width, height), _ = drawn_persons()[2]
    assert scenes.targets[2].boxes_xyxy[0] == pytest.approx([x, y, x + width, y + height])


def test_read_person_crops_ignores_the_surroundings(tmp_path):
    crops = read_person_crops(write_persons(tmp_path / "persons.parquet"), ("drawn", "other"))
    pixels, (x, y, width, height), _ = drawn_persons()[1]
    assert len(crops) == 4
    assert crops.targets[1].ignore.tolist() == [False, True]
    assert crops.targets[1].boxes_xyxy[0] == pytest.approx([x, y, x + width, y + height], rel=1e-6)
    assert crops.targets[1].boxes_xyxy[1].tolist() == [0, 0, pixels.shape[1], pixels.shape[0]]


def test_read_person_crops_refuses_missing_persons(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_person_crops(tmp_path / "nowhere.parquet")
    with pytest.raises(InputError, match=r"no person in it whose source is ski or gym"):
        read_person_crops(write_persons(tmp_path / "persons.parquet"), ("ski", "gym"))
    with pytest.raises(InputError, match="bbox and source of each person"):
        read_person_crops(parquet(tmp_path, [PERSON]), ("ski",))


def test_join_repeats_the_first_examples(tmp_path):
    scenes = read_scenes(write_scenes(tmp_path / "scenes.parquet", 1))
    crops = read_person_crops(write_persons(tmp_path / "persons.parquet", 2))
    both = join(scenes, crops, 3)
    assert len(both) == 3 * 2 + 2
    order = [scenes.read_image(0), scenes.read_image(1)] * 3 + [crops.read_image(0), crops.read_image(1)]
    assert [both.read_image(i) for i in range(8)] == order
    assert [len(target.ignore) for target in both.targets] == [0, 1] * 3 + [2, 2]
