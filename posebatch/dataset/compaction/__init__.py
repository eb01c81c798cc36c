"""Delta tables beside the small files of an output: written by ``compact``, used by readers, checked by ``verify``."""
