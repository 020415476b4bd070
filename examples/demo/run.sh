#!/usr/bin/env bash
# Puts the demo's model and data into S3, trains on the cluster of KUBECONFIG, and shows what came of it.
# Needs the operator in that cluster, and AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
# of an S3 server that its pods reach; `make demo` sees to all of that.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONUNBUFFERED=1
python=.venv/bin/python

$python examples/demo/make_model.py
$python examples/demo/make_dataset.py
$python examples/demo/upload.py
$python examples/demo/train.py
printf '\nMeasuring the model before and after training, about 40 s\n'
$python examples/demo/heldout.py
