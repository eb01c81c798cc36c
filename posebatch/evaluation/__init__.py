"""How good the networks are: figures against labelled images. Not part of a run; needs the extra ``train``."""
