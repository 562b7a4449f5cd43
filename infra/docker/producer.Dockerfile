# syntax=docker/dockerfile:1
# `capfleet`: `serve` unless another command is given. From the repo's root:
#   docker build -f infra/docker/producer.Dockerfile -t capfleet-producer:0.1.0 .
# The version of Node is the repo's own (pnpm-workspace.yaml).
ARG NODE_IMAGE=node:24.21.0-bookworm-slim

FROM ${NODE_IMAGE} AS packages
WORKDIR /app
ENV CI=true ONNXRUNTIME_NODE_INSTALL=skip
COPY package.json pnpm-lock.yaml pnpm-workspace.yaml ./
COPY packages/shared/package.json packages/shared/
COPY packages/producer/package.json packages/producer/
COPY packages/worker/package.json packages/worker/
# What the lock file says, of the producer and what it needs: no worker, no tools.
RUN npm exec --yes --package="pnpm@$(sed -n 's/^  pnpm: //p' pnpm-workspace.yaml)" -- \
    pnpm install --prod --frozen-lockfile --filter "capfleet..."
COPY scripts/node24.mjs scripts/
COPY test/demo/models test/demo/models
COPY packages/shared packages/shared
COPY packages/producer packages/producer

FROM ${NODE_IMAGE}
RUN mkdir -p /var/cache/capfleet && chown 1000:1000 /var/cache/capfleet
COPY --from=packages /app /app
RUN ln -s /app/packages/producer/bin/capfleet.mjs /usr/local/bin/capfleet
WORKDIR /tmp
USER 1000:1000
# Beyond the container's own address it listens only where there are API keys.
ENV NODE_ENV=production CAPFLEET_HOST=0.0.0.0 CAPFLEET_CACHE=/var/cache/capfleet
EXPOSE 8484
ENTRYPOINT ["capfleet"]
CMD ["serve"]
