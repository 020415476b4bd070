"""Runs the upstream Kubernetes programs as plain processes of one Linux machine.

cli          the command line
├── checks   what the machine must have
├── programs compiles the pinned programs
├── cluster  up, down and the faults that tests ask for
│   ├── control_plane, storage, node    the processes, each with its configuration
│   ├── network, cgroups, keys          what those processes need
│   └── supervisor                      starts, records and ends processes
└── images   builds the project's images and pushes them to the cluster's registry

Python's standard library only: a fresh machine runs it with nothing installed.
"""
