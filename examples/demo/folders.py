"""Where the demo keeps what it makes, and where that lies in S3."""

import os
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmtrain-demo"
MODEL = CACHE / "smollm2-135m-instruct"
DATA = CACHE / "data"
TRAIN_ROWS = DATA / "docstrings-train.jsonl"
HELD_OUT_ROWS = DATA / "docstrings-heldout.jsonl"
CHATS = DATA / "docstrings-chats.jsonl"
ADAPTER = CACHE / "adapter"

# A bucket's name is one's own only once on many servers: all users of AWS share the names.
BUCKET_PREFIX = os.environ.get("DEMO_BUCKET_PREFIX", "")
MODELS_BUCKET, DATA_BUCKET, RUNS_BUCKET = (BUCKET_PREFIX + x for x in ("models", "data", "runs"))
OUTPUT = "sft-docstrings/"  # As `output.uri` of examples/sft-run.yaml has it.


def s3_client() -> Any:
    """Returns a client of the S3 server that AWS_ENDPOINT_URL, AWS_REGION and the keys name."""
    import boto3
    from botocore.config import Config

    # Servers other than AWS's know the bucket by the path, not by the host name.
    config = Config(s3={"addressing_style": "path"}, retries={"mode": "standard"})
    return boto3.client("s3", region_name=os.environ.get("AWS_REGION", "us-east-1"), config=config)


def keys_under(client: Any, bucket: str, prefix: str) -> list[str]:
    """Returns the keys of all objects of `bucket` that start with `prefix`."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]
