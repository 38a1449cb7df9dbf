# Headstart on every node of a Ray cluster, head and workers alike.
#
#   docker build -f deploy/ray.Dockerfile -t REGISTRY/headstart-ray .
#
# Ray's own image has the tools that KubeRay needs beside Ray; keep its version that of locks/dev.txt.
FROM rayproject/ray:2.60.0-py312
COPY --chown=ray:users pyproject.toml README.md LICENSE /tmp/headstart/
COPY --chown=ray:users src /tmp/headstart/src
RUN pip install --no-cache-dir '/tmp/headstart[ray,remote,parquet]'
ENV RAY_USAGE_STATS_ENABLED=0 HEADSTART_CACHE=/shared/cache HEADSTART_HOME=/shared/home
WORKDIR /shared
