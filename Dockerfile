# Two images from one file: `--target operator` and `--target trainer`.
#
# Dependencies, which are large and seldom change, and the project's code, which is small and
# often does, are layers apart: a changed line moves kilobytes.
#
# Two optional secrets let the build reach a package index through proxies and mirrors without
# leaving their names in an image: `index`, a file of KEY=VALUE lines for pip and uv, and
# `certificates`, the authorities to trust.

FROM docker.io/library/debian:bookworm-slim AS python
# Numeric, so that Kubernetes can tell that it is not root.
ARG USER_ID=65532
RUN --mount=type=secret,id=index --mount=type=secret,id=certificates \
    if [ -f /run/secrets/index ]; then set -a; . /run/secrets/index; set +a; fi; \
    apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
        ca-certificates python3 && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log && \
    useradd --uid "$USER_ID" --home-dir /tmp --no-create-home --shell /usr/sbin/nologin llmtrain


# What builds: pip's installer of installers, and the wheel's builder. None of it is shipped.
FROM python AS tools
COPY requirements/build.txt /requirements/
RUN --mount=type=secret,id=index --mount=type=secret,id=certificates \
    if [ -f /run/secrets/index ]; then set -a; . /run/secrets/index; set +a; fi; \
    apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
        python3-venv && \
    python3 -m venv /tools && \
    /tools/bin/pip install --quiet --require-hashes --requirement /requirements/build.txt


# The project's packages as they lie in site-packages, compiled.
# (`FROM tools` would do, but for buildah 1.28: it has the mounts below only after a COPY.)
FROM python AS code
COPY --from=tools /tools /tools
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY trainer trainer
RUN PATH="/tools/bin:$PATH" && hatchling build --target wheel --directory /wheels && \
    uv pip install --quiet --offline --no-deps --target /code /wheels/*.whl && \
    python3 -m compileall -q --invalidation-mode unchecked-hash /code && \
    rm -rf /code/bin /code/.lock


# What both images have in common.
FROM python AS runtime
ENV HOME=/tmp \
    LANG=C.UTF-8 \
    PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp


FROM runtime AS operator
COPY requirements/operator.txt /usr/share/llmtrain/requirements.txt
RUN --mount=type=bind,from=tools,source=/tools,target=/tools \
    --mount=type=cache,target=/tmp/uv \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    export UV_CACHE_DIR=/tmp/uv UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH && \
    if [ -f /run/secrets/index ]; then set -a; . /run/secrets/index; set +a; fi; \
    /tools/bin/uv venv --quiet --python /usr/bin/python3 /opt/venv && \
    /tools/bin/uv pip install --quiet --python /opt/venv --compile-bytecode --require-hashes \
        --requirement /usr/share/llmtrain/requirements.txt
COPY --from=code /code/ /opt/venv/lib/python3.11/site-packages/
USER 65532:65532
ENTRYPOINT ["python3", "-m", "llmtrain_operator"]
ARG VERSION=0
LABEL org.opencontainers.image.title="llmtrain operator" \
      org.opencontainers.image.description="Trains language models on Kubernetes: the controller" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"


FROM runtime AS trainer
COPY requirements/trainer.txt /usr/share/llmtrain/requirements.txt
RUN --mount=type=bind,from=tools,source=/tools,target=/tools \
    --mount=type=cache,target=/tmp/uv \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    export UV_CACHE_DIR=/tmp/uv UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH && \
    if [ -f /run/secrets/index ]; then set -a; . /run/secrets/index; set +a; fi; \
    /tools/bin/uv venv --quiet --python /usr/bin/python3 /opt/venv && \
    /tools/bin/uv pip install --quiet --python /opt/venv --compile-bytecode --require-hashes \
        --requirement /usr/share/llmtrain/requirements.txt
# As pip would write it: `stage: Custom` calls the launcher by its name, in images built from this too.
RUN printf '#!/opt/venv/bin/python3\nfrom llmtrain_trainer.__main__ import run\n\nrun()\n' \
        > /opt/venv/bin/llmtrain-trainer && \
    chmod 755 /opt/venv/bin/llmtrain-trainer
COPY --from=code /code/ /opt/venv/lib/python3.11/site-packages/
USER 65532:65532
ENTRYPOINT ["python3", "-m", "llmtrain_trainer"]
ARG VERSION=0
LABEL org.opencontainers.image.title="llmtrain trainer" \
      org.opencontainers.image.description="Trains language models on Kubernetes: the worker" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
