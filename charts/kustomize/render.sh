#!/usr/bin/env bash
# Writes operator.yaml beside this file: the chart as plain YAML, for those who do not use Helm.
set -euo pipefail
cd "$(dirname "$0")"
helm template llmtrain ../llmtrain --namespace llmtrain-system --no-hooks --kube-version 1.35.0 \
  --set crds.enabled=false --set image.reference=llmtrain-operator --set trainerImage=llmtrain-trainer \
  2>/dev/null |
  sed -e '/^# Source:/d' -e '/managed-by: Helm/d' -e '/helm.sh\/chart:/d' |
  { echo "# Made by charts/kustomize/render.sh from the chart: change the chart, not this file."; cat; } \
    >"${1:-operator.yaml}"
