"""What users write and read: the API of llmtrain, shared by the operator and the trainer.

pydantic models only; no I/O happens in this package. The CRDs in `crds/` are generated from it.
"""

GROUP = "llmtrain.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
