# syntax=docker/dockerfile:1
# `capfleet-worker`. From the repo's root, for a CPU or for NVIDIA GPUs:
#   docker build -f infra/docker/worker.Dockerfile --target cpu -t capfleet-worker:0.1.0 .
#   docker build -f infra/docker/worker.Dockerfile --target cuda --build-arg ORT_GPU_SHA256=… -t capfleet-worker:0.1.0-cuda .
# The version of Node is the repo's own (pnpm-workspace.yaml). CUDA 12 with cuDNN 9 is what onnxruntime's libraries are for.
ARG NODE_IMAGE=node:24.21.0-bookworm-slim
ARG CUDA_IMAGE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04

FROM ${NODE_IMAGE} AS packages
WORKDIR /app
# The package has onnxruntime for a CPU. What its install script would fetch besides, unchecked, `cuda-packages` fetches.
ENV CI=true ONNXRUNTIME_NODE_INSTALL=skip
COPY package.json pnpm-lock.yaml pnpm-workspace.yaml ./
COPY packages/shared/package.json packages/shared/
COPY packages/producer/package.json packages/producer/
COPY packages/worker/package.json packages/worker/
# What the lock file says, of the worker and what it needs; and of onnxruntime, Linux on this kind of processor.
RUN npm exec --yes --package="pnpm@$(sed -n 's/^  pnpm: //p' pnpm-workspace.yaml)" -- \
    pnpm install --prod --frozen-lockfile --filter "@capfleet/worker..." \
 && bin="$(find node_modules/.pnpm -path '*/onnxruntime-node/bin/napi-v6' -type d)" \
 && rm -r "$bin/darwin" "$bin/win32" \
 && find "$bin/linux" -mindepth 1 -maxdepth 1 ! -name "$(node -p process.arch)" -exec rm -r {} +
COPY scripts/node24.mjs scripts/
COPY test/demo/models test/demo/models
COPY packages/shared packages/shared
COPY packages/worker packages/worker

FROM packages AS cuda-packages
# SHA-256 of onnxruntime's package for NVIDIA GPUs on NuGet; a build without it prints what it has found, and fails.
ARG ORT_GPU_SHA256
# A mirror of NuGet's flat container.
ARG NUGET_URL=https://api.nuget.org/v3-flatcontainer
COPY infra/docker/cuda-provider.mjs /tmp/
RUN node /tmp/cuda-provider.mjs packages/worker "$NUGET_URL" "$ORT_GPU_SHA256"

FROM ${CUDA_IMAGE} AS cuda
COPY --from=packages /usr/local/bin/node /usr/local/bin/node
RUN mkdir -p /var/cache/capfleet && chown 1000:1000 /var/cache/capfleet
COPY --from=cuda-packages /app /app
RUN ln -s /app/packages/worker/bin/capfleet-worker.mjs /usr/local/bin/capfleet-worker
USER 1000:1000
WORKDIR /tmp
# Checkpoints and compiled engines, gigabytes of them: a volume.
ENV NODE_ENV=production CAPFLEET_CACHE=/var/cache/capfleet
ENTRYPOINT ["capfleet-worker", "--device", "cuda"]

FROM ${NODE_IMAGE} AS cpu
RUN mkdir -p /var/cache/capfleet && chown 1000:1000 /var/cache/capfleet
COPY --from=packages /app /app
RUN ln -s /app/packages/worker/bin/capfleet-worker.mjs /usr/local/bin/capfleet-worker
USER 1000:1000
WORKDIR /tmp
ENV NODE_ENV=production CAPFLEET_CACHE=/var/cache/capfleet
ENTRYPOINT ["capfleet-worker"]
