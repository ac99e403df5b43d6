# The command `virtex` on PyTorch's official image: docs/cluster/README.md says how to run it.
#
#     docker build --tag virtex .
#
# IMAGE may be any newer tag of pytorch/pytorch that ends in -runtime.
ARG IMAGE=pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime
FROM ${IMAGE}

# The image's Python is the system's, which pip leaves alone unless it is told otherwise.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /opt/virtex
COPY . .
RUN python -m pip install --no-cache-dir "./[demo,huggingface,onnx,parquet,text,trackio,wandb]"

# Any user may run it, also `--user $(id -u)`, whom the container does not know: caches go to /tmp.
ENV HOME=/tmp USER=virtex
USER 1000:1000
WORKDIR /workspace
ENTRYPOINT ["virtex"]
CMD ["--help"]
