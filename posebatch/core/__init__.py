"""Types that all packages share: frames, images, videos, records, settings, errors. No I/O but settings files."""
