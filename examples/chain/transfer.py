"""Puts the chain's data into S3, and brings what it made back.

    PYTHONPATH=examples/demo python examples/chain/transfer.py up
    PYTHONPATH=examples/demo python examples/chain/transfer.py down

Reads AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and DEMO_BUCKET_PREFIX,
as the upload of `make demo` does.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import folders
import places
import upload

WANTED = ("model/", "results/")


def upload_data(client: Any) -> None:
    """Makes the buckets, and uploads what the runs are trained on; what is held out stays here."""
    for bucket in (folders.DATA_BUCKET, folders.RUNS_BUCKET):
        upload.make_bucket(client, bucket)
    for path in places.TRAINED_ON:
        upload.put(client, path, folders.DATA_BUCKET, places.DATA_PREFIX + path.name)


def download_results(client: Any) -> None:
    """Downloads model and results of each stage into the cache folder."""
    shutil.rmtree(places.RESULTS, ignore_errors=True)
    for stage in places.STAGES:
        for kind in WANTED:
            for key in folders.keys_under(
                client, folders.RUNS_BUCKET, places.output_of(stage) + kind
            ):
                target = places.RESULTS / Path(key)
                target.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(folders.RUNS_BUCKET, key, str(target))


def main(arguments: list[str]) -> None:
    """Transfers in the direction asked for."""
    match arguments:
        case ["up"]:
            upload_data(folders.s3_client())
        case ["down"]:
            download_results(folders.s3_client())
        case _:
            sys.exit("transfer: say `up` or `down`")


if __name__ == "__main__":
    main(sys.argv[1:])
