"""What an output holds, said on a host that reaches the store: the test process reaches no address of the cluster.

``python observe.py fill FOLDER ARCHIVE OUTPUT`` makes two buckets and puts the files of a folder into the first;
``python observe.py describe OUTPUT`` prints JSON.
"""

import hashlib
import json
import sys
from pathlib import Path

from faults.nights import published, records

from posebatch import read_videos
from posebatch.storage.addresses import split_s3
from posebatch.storage.open import open_store
from posebatch.storage.s3 import s3_client


def fill(folder: str, archive: str, output: str) -> None:
    """Make the buckets, and put the files of a folder into the archive."""
    for uri in (archive, output):
        s3_client().create_bucket(Bucket=split_s3(uri)[0])
    store = open_store(archive)
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())


def describe(output: str) -> dict[str, object]:
    """All that must be equal between two datasets, and what must be left of the work: nothing."""
    left = [
        stored.key for folder in ("_state/staging/", "_state/attempts/") for stored in open_store(output).list(folder)
    ]
    return {
        "published": {key: hashlib.sha256(content).hexdigest() for key, content in published(output).items()},
        "records": records(output),
        "attempts": sorted({int(attempts) for attempts in read_videos(output)["attempts"]}),
        "left": left,
    }


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "fill":
        fill(*arguments)
    else:
        print(json.dumps(describe(*arguments)))
