from posebatch.decoding import DECODINGS
from posebatch.settings import EstimatorSettings


def test_the_default_changes_nothing_of_what_a_network_wants():
    decoding = DECODINGS[EstimatorSettings().decoding]
    assert (decoding.refinement, decoding.box_fit) == ("quarter", "whole")
    assert (decoding.box_padding, decoding.alignment) == (None, None)


def test_dark_differs_from_the_default_in_the_refinement_alone():
    assert DECODINGS["dark"].refinement == "dark"
    assert DECODINGS["dark"].box_padding is DECODINGS["dark"].alignment is None


def test_the_threshold_of_the_matlab_demo_is_the_default():
    """`matlab-demo` need not set it."""
    assert EstimatorSettings().kpt_thr == 0.2
