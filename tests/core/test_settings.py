import dataclasses
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from posebatch.cli.entry import build_parser
from posebatch.core import fingerprints
from posebatch.core.config_file import read_config
from posebatch.core.errors import SettingsError, UsageError
from posebatch.core.fingerprints import data_fingerprint, motion_fingerprint, preview_fingerprint
from posebatch.core.options import Option, nearest
from posebatch.core.presets import PRESETS
from posebatch.core.preview_settings import PREVIEW_FORMATS
from posebatch.core.settings import (
    EstimatorSettings,
    PreviewSettings,
    SamplingSettings,
    Settings,
    options,
    settings_from,
)

OPTIONS = options()
BY_NAME = {item.name: item for item in OPTIONS}

# the names that users rely on
DOCUMENTED = {
    *("preset", "detector", "pose", "stride", "fps", "detect_every", "bbox_thr", "nms_thr", "kpt_thr", "max_persons"),
    *(
        "flip_test",
        "precision",
        "device",
        "engine",
        "decoder",
        "preview",
        "preview_scale",
        "workers",
        "segment_seconds",
        "log_format",
    ),
    *("include", "exclude", "limit", "on_existing", "retry_failed", "max_attempts", "wait", "endpoint_url"),
    *("archives", "request_payer"),
    *("max_pixels", "max_streams", "max_frames", "max_hours", "max_memory_gb", "max_seconds_per_frame"),
    "max_idle_minutes",
    "first_worker_minutes",
    *("fail_on", "fail_above", "deadline", "grace_minutes", "max_gpu_hours", "notify", "shard"),
    *("track", "linker", "max_gap_seconds", "cutoff_hz", "repair_swaps"),
    *("decoding", "oks_nms_thr", "engine", "detect_size", "tiles", "video_track"),
    *("color_by", "show", "privacy", "trail", "report", "recover_flow"),
}


def another(item: Option) -> typing.Any:
    """A valid value that is not the default, as YAML would give it."""
    if item.name in SPECIAL:
        return SPECIAL[item.name]
    if item.choices:
        return next(choice for choice in item.choices if choice != item.default)
    if item.value_type is bool:
        return not item.default
    if item.value_type is str:
        return "somewhere"
    base = item.default if item.default is not None else (item.low or 0)
    step = 1 if item.value_type is int else 0.125
    return base + step if item.high is None or base + step <= item.high else base - step


SPECIAL: dict[str, typing.Any] = {
    "shard": "3/64",
    "workers": "3",
    "tiles": "2x4",
    "video_track": "largest",
    "preview": ["gif"],
    "trail": ["left_wrist"],
    "show": ["boxes"],
    "include": ["*.mov", "a/*"],
    "exclude": ["*.tmp"],
    "fail_above": "1%",
    "deadline": "06:00",
    "notify": "https://hooks.example.com/run",
}


def parse(*arguments: str) -> Settings:
    chosen = build_parser().parse_args(["plan", "clip.mp4", "--output", "out", *arguments])
    from posebatch.cli.run import _settings  # noqa: PLC0415

    return _settings(chosen)


def test_options_are_the_documented_ones():
    assert set(BY_NAME) == DOCUMENTED
    assert len(OPTIONS) == len(BY_NAME), "no name twice"
    assert all(item.help for item in OPTIONS)


def test_settings_without_values_are_the_defaults():
    assert settings_from({}) == Settings() == parse()
    assert Settings().flat() == {item.name: item.default for item in OPTIONS}


@pytest.mark.parametrize("item", OPTIONS, ids=lambda item: item.name)
def test_options_are_set_by_key_dashed_key_and_flag(item: Option, tmp_path: Path):
    value = another(item)
    stored = tuple(value) if item.repeatable else value
    assert getattr(getattr(settings_from({item.name: value}), item.group), item.name) == stored
    chosen = settings_from({item.name.replace("_", "-"): value})
    assert chosen.flat() == {**Settings().flat(), item.name: stored}
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({item.name: value}))
    assert parse("--config", str(config)) == chosen
    if item.value_type is bool:
        negated = item.flag.replace("--", "--no-", 1)
        given, withdrawn = (item.flag, negated) if value else (negated, item.flag)
        assert parse(given) == chosen
        assert parse("--config", str(config), withdrawn) == Settings()
        return
    texts = [str(element) for element in (value if item.repeatable else [value])]
    assert parse(*(part for text in texts for part in (item.flag, text))) == chosen


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        pytest.param({"": 1}, ["settings: unknown setting ''"], id="no name"),
        pytest.param({"strid": 2}, ["unknown setting 'strid'", "did you mean 'stride'?"], id="nearest"),
        pytest.param({"box-thr": 0.2}, ["unknown setting 'box-thr'", "did you mean 'bbox_thr'?"], id="dashes"),
        pytest.param({"zzzzzzzz": 2}, ["unknown setting 'zzzzzzzz'"], id="nothing near"),
        pytest.param({7: 2}, ["unknown setting 7"], id="no text"),
        pytest.param({"stride": "2"}, ["stride must be a whole number, got '2'"], id="text for int"),
        pytest.param({"stride": 2.0}, ["stride must be a whole number, got 2.0"], id="float for int"),
        pytest.param({"stride": True}, ["stride must be a whole number, got True"], id="bool is no int"),
        pytest.param({"stride": None}, ["stride must be a whole number, got None"], id="none for int"),
        pytest.param({"bbox_thr": True}, ["bbox_thr must be a number, got True"], id="bool is no float"),
        pytest.param({"bbox_thr": "0.3"}, ["bbox_thr must be a number"], id="text for float"),
        pytest.param({"flip_test": 1}, ["flip_test must be true or false, got 1"], id="int is no bool"),
        pytest.param({"flip_test": "yes"}, ["flip_test must be true or false"], id="text is no bool"),
        pytest.param({"detector": True}, ["detector must be text, got True"], id="bool is no text"),
        pytest.param({"detector": ["a"]}, ["detector must be text"], id="list is no text"),
        pytest.param({"include": 5}, ["include must be a list, got 5"], id="no list"),
        pytest.param({"include": [True]}, ["include must be text, got True"], id="list of bool"),
        pytest.param({"include": {"a": 1}}, ["include must be a list"], id="mapping is no list"),
        pytest.param({"stride": 0}, ["stride must be at least 1, got 0"], id="too low"),
        pytest.param({"bbox_thr": 1.01}, ["bbox_thr must be at least 0 and at most 1, got 1.01"], id="too high"),
        pytest.param({"bbox_thr": float("nan")}, ["bbox_thr must be", "nan"], id="nan"),
        pytest.param({"fps": 0}, ["fps must be at least 1e-06, got 0"], id="no frames at all"),
        pytest.param({"fps": float("inf")}, ["fps must be a finite number, got inf"], id="endless"),
        pytest.param({"segment_seconds": float("inf")}, ["segment_seconds must be a finite"], id="endless segment"),
        pytest.param({"detect_every": 0}, ["detect_every must be at least 1, got 0"], id="never"),
        pytest.param({"limit": 0}, ["limit must be at least 1, got 0"], id="limit 0"),
        pytest.param(
            {"precision": "fp8"},
            ["precision must be one of auto, fp32, bf16, fp16, int8", "did you mean 'fp"],
            id="choice",
        ),
        pytest.param({"preset": "quick"}, ["preset must be one of embedded, fast, balanced"], id="preset"),
        pytest.param({"detect_size": 400}, ["detect_size must be one of 320, 480, 640, auto, got '400'"], id="size"),
        pytest.param({"tiles": "2"}, ["tiles must be rows x columns such as 2x4, 1 to 8 of each, got '2'"], id="tiles"),
        pytest.param({"tiles": "0x2"}, ["tiles must be rows x columns"], id="no tiles"),
        pytest.param(
            {"preview": "avi"}, ["preview must be one of none, gif, mp4, webp, sheet, got 'avi'"], id="format"
        ),
        pytest.param({"preview": ["gif", "mov"]}, ["got 'mov'"], id="each of a list is checked"),
        pytest.param({"workers": "0"}, ["workers must be auto or a whole number above 0, got '0'"], id="no workers"),
        pytest.param({"workers": "-1"}, ["workers must be"], id="fewer than none"),
        pytest.param({"workers": 2.5}, ["workers must be"], id="half a worker"),
        pytest.param({"workers": "²"}, ["workers must be"], id="a digit that is no number"),
        pytest.param({"workers": True}, ["workers must be text, got True"], id="bool is no number of workers"),
        pytest.param({"fps": 5, "stride": 2}, ["stride 2 and fps 5 both choose frames"], id="two samplings"),
    ],
)
def test_settings_from_names_what_is_wrong(values, parts):
    with pytest.raises(SettingsError) as caught:
        settings_from(values)
    for part in parts:
        assert part in str(caught.value)


def test_settings_from_names_its_source():
    with pytest.raises(SettingsError, match=r"^nightly\.yaml: stride must be"):
        settings_from({"stride": 0}, "nightly.yaml")


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"workers": 4}, "workers", "4"),
        ({"fps": 5}, "fps", 5.0),
        ({"fps": None}, "fps", None),
        ({"fps": 5, "stride": 1}, "fps", 5.0),
        ({"detector": 320}, "detector", "320"),
        ({"preview": "gif"}, "preview", ("gif",)),
        ({"preview": []}, "preview", ()),
        ({"include": ("a", "b")}, "include", ("a", "b")),
        ({"bbox_thr": 0}, "bbox_thr", 0.0),
        ({"bbox_thr": 1}, "bbox_thr", 1.0),
    ],
)
def test_settings_from_converts_yaml_values(values, name, expected):
    value = settings_from(values).flat()[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", {}, id="empty"),
        pytest.param(b"# nothing\n", {}, id="comment"),
        pytest.param(b"stride: 3\npreview: [gif]\n", {"stride": 3, "preview": ["gif"]}, id="values"),
        pytest.param(b"- stride\n", "must hold 'name: value' lines, holds a list", id="list"),
        pytest.param(b"stride\n", "must hold 'name: value' lines, holds a str", id="text"),
        pytest.param(b"stride: 3\nworkers: 2\nstride: 5\n", "'stride' stands twice", id="a name twice"),
        pytest.param(b"max-attempts: 3\nmax_attempts: 5\n", "'max_attempts' stands twice", id="with another dash"),
        pytest.param(b"stride: !!map x\n", "cannot be read as YAML", id="a mapping that is none"),
        pytest.param(b"stride: [3\n", "cannot be read as YAML", id="broken"),
        pytest.param(b"\xff\xfe\x00", "cannot be read as YAML", id="no text"),
        pytest.param(b"a: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML", id="code"),
        pytest.param(None, "cannot be read as YAML", id="missing"),
    ],
)
def test_read_config(content: bytes | None, expected, tmp_path: Path):
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_bytes(content)
    if isinstance(expected, dict):
        assert read_config(str(path)) == expected
        return
    with pytest.raises(SettingsError) as caught:
        read_config(str(path))
    assert str(caught.value).startswith(f"--config {path}: ")
    assert expected in str(caught.value)


def test_read_config_refuses_a_folder(tmp_path: Path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read_config(str(tmp_path))


def test_flags_override_the_config_file(tmp_path: Path):
    config = tmp_path / "settings.yaml"
    config.write_text("stride: 3\nmax-persons: 7\npreview: [gif]\nflip_test: true\n")
    chosen = parse("--config", str(config), "--stride", "5", "--no-flip-test", "--preview", "none")
    expected = {**Settings().flat(), "stride": 5, "max_persons": 7, "preview": ("none",), "flip_test": False}
    assert chosen.flat() == expected


def test_errors_in_the_config_file_name_the_file(tmp_path: Path):
    config = tmp_path / "settings.yaml"
    config.write_text("max_person: 3\n")
    with pytest.raises(SettingsError) as caught:
        parse("--config", str(config))
    assert f"--config {config}: unknown setting 'max_person'; did you mean 'max_persons'?" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--strid", "2"], "did you mean '--stride'?"),
        (["--stride", "x"], "invalid int value: 'x'"),
        (["--stride"], "expected one argument"),
        (["--stride", "0"], "command line: stride must be at least 1"),
        (["--fps", "5", "--stride", "2"], "both choose frames"),
    ],
)
def test_command_line_names_what_is_wrong(arguments, part):
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("", [], ""),
        ("stride", [], ""),
        ("strde", ["stride", "preset"], "; did you mean 'stride'?"),
        ("q", ["stride", "preset"], ""),
    ],
)
def test_nearest_suggests_similar_names(name, known, expected):
    assert nearest(name, known) == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_names_two_networks_and_options_override_it(preset):
    assert (EstimatorSettings(preset).detector_name, EstimatorSettings(preset).pose_name) == PRESETS[preset]
    assert EstimatorSettings(preset, detector="a").detector_name == "a"
    assert EstimatorSettings(preset, detector="a").pose_name == PRESETS[preset][1]
    assert EstimatorSettings(preset, pose="b").pose_name == "b"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ("320", "1x1", 20)),
        ({"preset": "embedded"}, ("320", "1x1", 20)),
        ({"preset": "far"}, ("320", "2x4", 100)),
        ({"preset": "far", "tiles": "1x1"}, ("320", "1x1", 100)),
        ({"preset": "far", "detect_size": "640", "max-persons": 20}, ("640", "2x4", 20)),
    ],
)
def test_preset_sets_values_that_are_not_given(values, expected, tmp_path: Path):
    estimator = settings_from(values).estimator
    assert (estimator.detect_size, estimator.tiles, estimator.max_persons) == expected
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({name: value for name, value in values.items() if name != "preset"}))
    preset = ["--preset", values["preset"]] if "preset" in values else []
    assert parse("--config", str(config), *preset).estimator == estimator


@pytest.mark.parametrize(
    ("preview", "wanted"),
    [((), ()), (("none",), ()), (("gif",), ("gif",)), (("sheet", "mp4", "none", "mp4"), ("mp4", "sheet"))],
)
def test_previews_are_wanted_once_and_in_a_fixed_order(preview, wanted):
    assert settings_from({"preview": preview}).preview.formats == wanted


# --- fingerprints --------------------------------------------------------------------------------------------------


def fingerprint(settings: Settings, detector: str = "d@1", pose: str = "p@1") -> str:
    return data_fingerprint(settings, detector, pose)


def with_field(settings: Settings, group: str, name: str, value: typing.Any) -> Settings:
    part = dataclasses.replace(getattr(settings, group), **{name: value})
    return dataclasses.replace(settings, **{group: part})


def fields_of(*groups: str) -> list[Option]:
    return [item for item in OPTIONS if item.group in groups]


def other_value(item: Option) -> typing.Any:
    """A value that is not the default, as a settings object holds it."""
    value = another(item)
    return tuple(value) if item.repeatable else value


def test_fingerprints_are_pinned():
    """Fingerprints decide what is recomputed. A change must be deliberate and needs a new PIPELINE_VERSION."""
    assert fingerprint(Settings()) == "75a045f8fa9162f7"


@pytest.mark.parametrize("chosen", [{}, *({item.name: another(item)} for item in options() if item.group == "motion")])
def test_settings_of_motion_change_its_fingerprint_alone(chosen):
    changed = settings_from(chosen)
    assert (motion_fingerprint(changed) == motion_fingerprint(Settings())) == (not chosen)
    assert fingerprint(changed) == fingerprint(Settings())


def test_threshold_of_keypoints_and_version_change_the_fingerprint_of_motion(monkeypatch):
    before = motion_fingerprint(Settings())
    assert motion_fingerprint(settings_from({"kpt_thr": 0.3})) != before
    monkeypatch.setattr(fingerprints, "MOTION_VERSION", fingerprints.MOTION_VERSION + 1)
    assert motion_fingerprint(Settings()) != before


@pytest.mark.parametrize(
    ("values", "digest"),
    [
        ({}, "dcf588b5d8e73178"),
        ({"stride": 2, "bbox_thr": 0.5, "max_persons": 50}, "ce2e5d63edae09f0"),
        ({"detect_size": "320", "tiles": "1x1"}, "dcf588b5d8e73178"),
    ],
)
def test_fingerprints_of_rows_without_oks_nms_are_those_of_earlier_versions(values, digest):
    assert fingerprint(settings_from({**values, "oks_nms_thr": 1})) == digest


def test_fingerprint_of_a_given_oks_nms_threshold_is_that_of_earlier_versions():
    assert fingerprint(settings_from({"oks_nms_thr": 0.9, "stride": 2})) == "fd5aa18a7da03d28"


def changed_settings(*groups: str) -> dict[str, Settings]:
    """For each field of the groups: the default settings with another value there."""
    changed = {
        item.name: with_field(Settings(), item.group, item.name, other_value(item)) for item in fields_of(*groups)
    }
    assert Settings() not in changed.values()
    return changed


def test_data_fingerprint_changes_with_estimator_and_sampling():
    """Except with the names of networks, which count by identity."""
    changed = changed_settings("estimator", "sampling")
    same = {name for name, settings in changed.items() if fingerprint(settings) == fingerprint(Settings())}
    assert same == {"preset", "detector", "pose"}


def test_every_estimator_and_sampling_field_is_an_option():
    names = {field.name for cls in (EstimatorSettings, SamplingSettings) for field in dataclasses.fields(cls)}
    assert names == {item.name for item in fields_of("estimator", "sampling")}


def test_data_fingerprint_without_recovery_is_that_of_earlier_versions():
    assert fingerprint(settings_from({"recover_flow": False})) == fingerprint(Settings())
    assert fingerprint(settings_from({"recover_flow": True})) != fingerprint(Settings())


@pytest.mark.parametrize(
    ("detect_every", "recover_flow", "frames"),
    [(1, False, 1), (5, False, 5), (1, True, 24), (5, True, 25), (24, True, 24), (100, True, 100)],
)
def test_groups_of_frames_are_a_multiple_of_detect_every(detect_every, recover_flow, frames):
    assert EstimatorSettings(detect_every=detect_every, recover_flow=recover_flow).group_frames == frames


def test_data_fingerprint_counts_the_oks_nms_threshold_that_applies():
    assert fingerprint(Settings()) == fingerprint(settings_from({"oks_nms_thr": 0.7}))
    assert fingerprint(Settings()) != fingerprint(settings_from({"oks_nms_thr": 1}))


def test_data_fingerprint_ignores_other_groups():
    changed = changed_settings("preview", "execution", "limits", "selection")
    assert [name for name, settings in changed.items() if fingerprint(settings) != fingerprint(Settings())] == []


def test_data_fingerprint_depends_on_network_identities():
    digests = {fingerprint(Settings(), d, p) for d in ("a@1", "a@2", "b@1") for p in ("p@1", "p@2")}
    assert len(digests) == 6
    assert fingerprint(Settings(), "a", "b") != fingerprint(Settings(), "b", "a")


def test_fingerprints_depend_on_the_pipeline_version(monkeypatch: pytest.MonkeyPatch):
    before = fingerprint(Settings()), preview_fingerprint(Settings())
    monkeypatch.setattr(fingerprints, "PIPELINE_VERSION", fingerprints.PIPELINE_VERSION + 1)
    assert fingerprint(Settings()) != before[0]
    assert preview_fingerprint(Settings()) != before[1]


def test_preview_fingerprint_depends_on_the_drawing_and_tables_do_not(monkeypatch: pytest.MonkeyPatch):
    before = fingerprint(Settings()), preview_fingerprint(Settings())
    monkeypatch.setattr(fingerprints, "DRAWING_VERSION", fingerprints.DRAWING_VERSION + 1)
    assert fingerprint(Settings()) == before[0]
    assert preview_fingerprint(Settings()) != before[1]


def test_preview_fingerprint_is_not_that_of_earlier_drawings():
    assert preview_fingerprint(settings_from({"preview_scale": 0.35})) != "aa27ac7e80e250f1"


@pytest.mark.parametrize(
    ("chosen", "size_wh", "scale"),
    [(None, (1920, 1080), 0.25), (None, (540, 960), 0.5), (None, (320, 240), 1.0), (0.35, (320, 240), 0.35)],
)
def test_preview_fits_a_phone_unless_a_scale_is_given(chosen, size_wh, scale):
    assert PreviewSettings(preview_scale=chosen).scale_of(*size_wh) == scale


def test_preview_fingerprint_depends_on_the_drawing_and_on_the_settings_of_tracks_alone():
    changed = changed_settings(*(field.name for field in dataclasses.fields(Settings)))
    assert len(changed) == len(OPTIONS)
    before = preview_fingerprint(Settings())
    assert {name for name, settings in changed.items() if preview_fingerprint(settings) != before} == {
        *("preview_scale", "color_by", "trail", "show", "privacy"),
        *("track", "linker", "max_gap_seconds"),
    }


@pytest.mark.parametrize(
    "values",
    [
        {"color_by": "edge"},
        {"track": False},
        {"track": False, "color_by": "edge", "linker": "greedy-oks"},
        {"color_by": "edge", "max_gap_seconds": 3},
    ],
)
def test_preview_fingerprint_without_tracks_is_that_of_earlier_versions(values):
    assert preview_fingerprint(settings_from(values)) == "b4b94cea6d5e782f"


EARLIER_GIF = "5534ab874d2e20d3"


def test_preview_fingerprint_of_gifs_is_that_of_earlier_versions():
    """An archive whose GIFs are there is not drawn again because there are other formats now."""
    assert preview_fingerprint(Settings(), "gif") == preview_fingerprint(Settings()) == EARLIER_GIF
    assert preview_fingerprint(settings_from({"preview": ["gif", "mp4", "sheet"]})) == EARLIER_GIF


def test_preview_fingerprints_of_formats_differ():
    assert len({preview_fingerprint(Settings(), form) for form in PREVIEW_FORMATS}) == len(PREVIEW_FORMATS)


def test_preview_fingerprint_depends_on_motion_if_angles_are_shown():
    for show, changes in ((["angles"], True), (["boxes"], False)):
        one, other = (settings_from({"show": show, "cutoff_hz": hz}) for hz in (4, 8))
        assert (preview_fingerprint(one) != preview_fingerprint(other)) is changes


@pytest.mark.parametrize("values", [{"privacy": "blur-faces"}, {"show": ["ids"]}, {"show": ["angles"]}])
def test_previews_that_need_tracks_are_refused_without_them(values):
    with pytest.raises(SettingsError, match="need tracks: they cannot be combined with no-track"):
        settings_from({**values, "track": False})
    assert settings_from(values).preview.needs_tracks


def test_preview_fingerprint_ignores_order_and_repetition_of_trails():
    one, other = ({"trail": trail} for trail in (["nose", "left_wrist"], ["left_wrist", "nose", "nose"]))
    assert preview_fingerprint(settings_from(one)) == preview_fingerprint(settings_from(other))


@pytest.mark.parametrize(
    ("values", "by_track"),
    [({}, True), ({"track": False}, False), ({"color_by": "edge"}, False), ({"color_by": "track"}, True)],
)
def test_previews_are_coloured_by_track_where_there_are_tracks(values, by_track):
    assert settings_from(values).colors_by_track is by_track


@pytest.mark.parametrize("values", [{"color_by": "track"}, {"trail": ["nose"]}])
def test_drawing_tracks_is_refused_without_tracks(values):
    with pytest.raises(SettingsError, match="cannot be combined with no-track"):
        settings_from({"track": False, **values})


@given(st.floats(0, 1), st.integers(1, 100), st.booleans())
def test_settings_survive_yaml(threshold, stride, flip):
    before = settings_from({"bbox_thr": threshold, "stride": stride, "flip_test": flip, "preview": ["gif"]})
    flat = {name: list(value) if isinstance(value, tuple) else value for name, value in before.flat().items()}
    assert settings_from(yaml.safe_load(yaml.safe_dump(flat))) == before
