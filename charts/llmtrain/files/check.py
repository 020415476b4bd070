"""`helm test`: the operator is ready, and the API server serves its resources."""

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

with urllib.request.urlopen(os.environ["READY_URL"], timeout=10) as answer:
    sys.stdout.write(f"the operator is ready: {answer.read().decode()}\n")

request = urllib.request.Request(
    "https://kubernetes.default.svc/apis/llmtrain.dev/v1alpha1",
    headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text(encoding='ascii')}"},
)
trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
    served = [resource["name"] for resource in json.load(answer)["resources"]]
missing = {"llmtrainruns", "llmtrainschedules"} - set(served)
if missing:
    sys.exit(f"the API server serves {served} and not {missing}: install the CRDs")
sys.stdout.write(f"the API server serves {', '.join(served)}\n")
