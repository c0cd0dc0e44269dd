# The image of the pipeline's steps, of the MLflow server and of the command line. Two variants from one file:
#   docker build -t smartphotocrafter:cuda .
#   docker build -t smartphotocrafter:cpu --build-arg VARIANT=cpu .
# No photos, models, runs or credentials are in it: data comes by `dvc pull`, secrets by the environment. The CUDA
# libraries come as wheels with PyTorch, so both variants start from the same small base; the driver is the node's.

FROM python:3.11-slim-bookworm AS dependencies
ARG VARIANT=cuda
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY requirements.lock /tmp/requirements.lock
RUN python -m venv /opt/venv \
    && case "$VARIANT" in \
         cuda) ;; \
         cpu) sed -i -E '/^(nvidia-|cuda-|triton=)/d; s/^torch(vision)?==.*/&+cpu/' /tmp/requirements.lock; \
              export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu ;; \
         *) echo "VARIANT is '$VARIANT', expected cpu or cuda" >&2; exit 2 ;; \
       esac \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --requirement /tmp/requirements.lock \
    && find /opt/venv -type d -name __pycache__ -prune -exec rm -rf {} +

FROM python:3.11-slim-bookworm
# Debian's stable release only ever changes these for security, so their versions are left to it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 crafter \
    && useradd --create-home --uid 1000 --gid 1000 crafter \
    && install --directory --owner=crafter --group=crafter /app /state \
    && install --directory /etc/dvc \
    && printf '[core]\n    no_scm = true\n    analytics = false\n' > /etc/dvc/config
# No secret is among these: hadolint takes TOKENIZERS for one.
# hadolint ignore=DL3064
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SPC_STATE=/state \
    ZENML_ANALYTICS_OPT_IN=false \
    ZENML_ENABLE_REPO_INIT_WARNINGS=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false \
    GX_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=true \
    DVC_NO_ANALYTICS=true \
    DVC_SYSTEM_CONFIG_DIR=/etc/dvc \
    DVC_SITE_CACHE_DIR=/tmp/dvc \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    TOKENIZERS_PARALLELISM=false
COPY --from=dependencies /opt/venv /opt/venv
# The command line, the MLflow server and the scheduled retraining use this copy of the code. Runs bring their own, to
# /app: that folder stays empty, or the pod that starts the stages would look here for what their cache keys depend on.
WORKDIR /opt/smartphotocrafter
COPY pyproject.toml requirements.in requirements.lock README.md LICENSE data.dvc ./
COPY .dvc/config .dvc/config
COPY configs configs
COPY components components
COPY steps steps
COPY pipelines pipelines
RUN pip install --no-cache-dir --no-compile --no-deps --no-build-isolation --editable .
WORKDIR /app
USER 1000:1000
ENTRYPOINT []
CMD ["smartphotocrafter", "--help"]
