#!/bin/sh
# Pins all that goes into the images: versions and digests, no hosts. Needs `uv`.
# Versions already pinned stay, unless you run `requirements/compile.sh --upgrade`.
set -eu
cd "$(dirname "$0")/.."

pin() {
    output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
        --output-file "$output" "$@"
}

pin requirements/operator.txt pyproject.toml --extra operator "$@"
pin requirements/trainer.txt pyproject.toml --extra trainer "$@"
pin requirements/build.txt requirements/build.in "$@"
