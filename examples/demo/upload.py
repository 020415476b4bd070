"""Puts the demo's model and data into S3: s3://models/smollm2-135m-instruct/ and s3://data/.

    python examples/demo/upload.py

Reads AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. The names of the
buckets start with DEMO_BUCKET_PREFIX, where that is set. What is there already, with the same
content, is left alone.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import folders
from botocore.exceptions import ClientError

MD5 = "demo-md5"  # Our own note on the object: the ETag of a large one is no plain MD5.
WAY_OUT = (
    "Check the AWS_* settings, or choose other buckets by DEMO_BUCKET_PREFIX, for instance acme-"
)


def md5_of(path: Path) -> str:
    """Returns the MD5 of a file, as a name for its content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def is_there(client: Any, bucket: str, key: str, size: int, md5: str) -> bool:
    """Returns whether the object has this size and content."""
    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return bool(head["ContentLength"] == size and head["Metadata"].get(MD5) == md5)


def put(client: Any, path: Path, bucket: str, key: str) -> None:
    """Uploads a file unless its content is there."""
    size, md5 = path.stat().st_size, md5_of(path)
    known = is_there(client, bucket, key, size, md5)
    if not known:
        client.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {MD5: md5}})
    print(f"{'there:   ' if known else 'uploaded:'} s3://{bucket}/{key} ({size / 1e6:.1f} MB)")


def make_bucket(client: Any, bucket: str) -> None:
    """Makes a bucket where it is missing; ends the demo where it cannot be ours."""
    region = client.meta.region_name
    # us-east-1 is what a server takes where none is named, and AWS refuses its name here.
    elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            sys.exit(f"demo: s3://{bucket}/: {error}. {WAY_OUT}")
    else:
        return
    try:
        client.create_bucket(Bucket=bucket, **({} if region == "us-east-1" else elsewhere))
    except ClientError as error:
        sys.exit(f"demo: s3://{bucket}/ is missing and cannot be made: {error}. {WAY_OUT}")
    print(f"bucket:    s3://{bucket}/")


def main() -> None:
    """Uploads the model's folder and the rows."""
    client = folders.s3_client()
    for bucket in (folders.MODELS_BUCKET, folders.DATA_BUCKET, folders.RUNS_BUCKET):
        make_bucket(client, bucket)
    for path in sorted(folders.MODEL.iterdir()):
        put(client, path, folders.MODELS_BUCKET, f"{folders.MODEL.name}/{path.name}")
    for path in (folders.TRAIN_ROWS, folders.HELD_OUT_ROWS, folders.CHATS):
        put(client, path, folders.DATA_BUCKET, path.name)


if __name__ == "__main__":
    main()
