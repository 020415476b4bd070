#!/usr/bin/env bash
# Makes real text, has the cluster of KUBECONFIG turn it into a tokenizer, a model, an answering model
# and one that prefers right answers, and measures each. Needs what examples/demo/run.sh needs;
# `make demo-chain` sees to all of that.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONUNBUFFERED=1 PYTHONPATH=examples/demo
python=.venv/bin/python

$python examples/chain/make_questions.py
$python examples/chain/make_corpus.py
$python examples/chain/transfer.py up
$python examples/chain/run_stages.py
printf '\nMeasuring all stages on what no run has seen, about 40 s\n'
$python examples/chain/transfer.py down
$python examples/chain/measure.py
