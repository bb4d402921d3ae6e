# The `kt` command with everything it needs. All processes of a directory run from this one image.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY kt_es kt_es
COPY projections projections
COPY signer signer
RUN python -m venv /opt/kt \
 && /opt/kt/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[server,grpc,openpgp,shared]'

FROM python:3.12-slim
# The directories exist here with their owner and mode: a new named volume takes both from them.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin kt \
 && install -d -m 0700 -o kt -g kt /data /kt /kt/keys /kt/keys/signer
COPY --from=build /opt/kt /opt/kt
COPY deploy/docker /usr/local/lib/kt-es
ENV PATH=/opt/kt/bin:/usr/local/lib/kt-es:$PATH \
    PYTHONUNBUFFERED=1 \
    KT_CONFIG=/kt/kt.toml \
    KT_INIT_DATA=/kt \
    KT_NODE_DATA=/data \
    KT_NODE_LISTEN=0.0.0.0:2113 \
    KT_SIGNER_DATA=/data \
    KT_FRONTEND_DATA=/data \
    KT_FRONTEND_LISTEN=0.0.0.0:8080 \
    KT_MONITOR_DATA=/data \
    KT_COSIGN_DATA=/data
USER kt
WORKDIR /data
ENTRYPOINT ["kt"]
CMD ["--help"]
