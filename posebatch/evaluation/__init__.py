"""Accuracy of the networks on labelled images. Not part of a run; needs the extra ``train``."""
