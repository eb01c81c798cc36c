"""Find an encoder in the build of FFmpeg that PyAV brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from posebatch.core.errors import PreviewError


def stream_for(
    container: OutputContainer, encoders: Sequence[str], what: str, options: Mapping[str, str]
) -> VideoStream:
    """Add a stream with the first of the encoders that this build of FFmpeg has, and with one thread.

    With one thread the same frames give the same bytes on any machine. Raises `PreviewError` that names ``what``, such
    as "an MP4", if there is none.
    """
    available = next((name for name in encoders if name in av.codecs_available), None)
    if available is None:
        raise PreviewError(
            f"this build of FFmpeg cannot write {what}: it lacks the encoder {' or '.join(encoders)}. The wheels of "
            "PyAV on PyPI have it (pip install --force-reinstall --only-binary :all: av); or choose another --preview"
        )
    stream = container.add_stream(available, options=dict(options))
    assert isinstance(stream, VideoStream)
    stream.codec_context.thread_count = 1
    return stream
