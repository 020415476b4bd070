"""Makes the CRDs in `crds/` from the pydantic models: `python -m llmtrain_api.crd crds`.

models -> schema.py      pydantic's JSON schema, rewritten as Kubernetes takes it
       -> frozen.py      one rule per block that may not change once a run has started
       -> structural.py  refuses what an API server would refuse, and what we decided against
       -> definition.py  names, columns and the whole CustomResourceDefinition
"""
