"""The command line of jobs/evaluate_tracks.py."""

from posebatch.evaluation.track_command import evaluate_tracks


def test_true_boxes_need_a_linker(capsys):
    code = evaluate_tracks(["--truth", "a.csv", "--output", "out", "--true-boxes"], None)
    assert code == 2
    assert "--linker" in capsys.readouterr().err


def test_missing_truth_is_an_error_that_names_the_file(capsys):
    assert evaluate_tracks(["--truth", "missing.csv", "--output", "out"], None) == 2
    assert "missing.csv" in capsys.readouterr().err
