"""What runs inside a trainer pod: the launcher (PID 1) and the training processes it starts.

Knows nothing of Kubernetes: it reads one `run.json`, object storage and a scratch folder, so the
same program runs on a laptop.
"""
