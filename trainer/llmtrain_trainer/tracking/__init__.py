"""The curves of a run for people's own tools: TensorBoard, MLflow, Weights & Biases.

All are fed from the training log, and training knows nothing of them:

    tensorboard.py   node 0's launcher writes event files into storage
    processes.py     node 0's launcher starts a process for each service, and ends it at the end
    __main__.py      such a process: it reads the log and tells the service, as often as it takes
    mlflow_run.py, wandb_run.py   what the two services are told, by their own libraries

A service is an outsider that may be down, hang or refuse. In a process of its own it can neither
stop nor delay training, and it can be killed.
"""
