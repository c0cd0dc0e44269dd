# The image of the pipeline's steps and of the command line. Two variants from one file:
#   docker build -t smartphotocrafter:cuda .
#   docker build -t smartphotocrafter:cpu --build-arg VARIANT=cpu .
# No photos, models, runs or credentials are in it: data comes by `dvc pull`, secrets by the environment.

FROM python:3.11-slim-bookworm AS dependencies
ARG VARIANT=cuda
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock /tmp/requirements.lock
RUN python -m venv /opt/venv \
    && if [ "$VARIANT" = cpu ]; then \
         sed -i -E '/^(nvidia-|cuda-|triton=)/d' /tmp/requirements.lock; \
         export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu; \
       fi \
    && /opt/venv/bin/pip install --requirement /tmp/requirements.lock

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 crafter \
    && mkdir /app \
    && chown crafter:crafter /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ZENML_CUSTOM_SOURCE_ROOT=/app \
    ZENML_ANALYTICS_OPT_IN=false \
    SPC_STATE=/app/.spc
COPY --from=dependencies /opt/venv /opt/venv
WORKDIR /app
COPY --chown=crafter:crafter pyproject.toml requirements.in requirements.lock README.md LICENSE data.dvc ./
COPY --chown=crafter:crafter .dvc/config .dvc/config
COPY --chown=crafter:crafter configs configs
COPY --chown=crafter:crafter components components
COPY --chown=crafter:crafter steps steps
COPY --chown=crafter:crafter pipelines pipelines
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .
USER crafter
ENTRYPOINT []
CMD ["smartphotocrafter", "--help"]
