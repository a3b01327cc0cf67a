# The environment of requirements.lock. The project itself is a mounted folder (docs/howto-container.md).
FROM python:3.11.14-bookworm
COPY requirements.lock /opt/
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --requirement /opt/requirements.lock \
        vllm==0.31.0 snakemake-executor-plugin-kubernetes==0.5.1 \
    && git config --system --add safe.directory '*'
# A user that the image does not know has no home folder and no name.
# vLLM's compile cache outlasts a container.
ENV PYTHONPATH=. HOME=/tmp LOGNAME=salsa VLLM_CACHE_ROOT=/workspace/.cache/vllm
WORKDIR /workspace
