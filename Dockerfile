# One image for each process:
#
#   docker build --build-arg SERVICE=sessions -t concerto-sessions .
#
# SERVICE is a part of services/parts.toml, or supabase: the embedded one, for one machine and never for production.
# docs/deployment.md says what is in an image and how it is run.
ARG SERVICE

# ── What is generated from protos/, and the OpenAPI document, of which the web app's types are made ──────────────────
FROM python:3.13-slim AS contract
WORKDIR /build
COPY requirements.lock pyproject.toml ./
COPY deploy/image.py deploy/
COPY services/parts.toml services/
COPY servicekit/__init__.py servicekit/parts.py servicekit/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /tools \
    && python -m deploy.image tools > tools.txt \
    && /tools/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tools.txt
COPY local/__init__.py local/
COPY local/setup/__init__.py local/setup/codegen.py local/setup/
COPY protos protos
RUN /tools/bin/python -m local.setup.codegen
COPY servicekit servicekit
COPY gateway gateway
RUN PYTHONPATH=/build/gen /tools/bin/python -m gateway.document openapi.json

# ── Node packages: the documentation page's files, the web app's tools, the embedded Supabase ────────────────────────
FROM node:24-slim AS modules
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN --mount=type=cache,target=/root/.npm npm ci --no-progress

# ── The web app, exported to static files ────────────────────────────────────────────────────────────────────────────
FROM modules AS web
WORKDIR /build/web
COPY web/package.json web/package-lock.json web/.npmrc ./
RUN --mount=type=cache,target=/root/.npm npm ci --no-progress
COPY web .
COPY --from=contract /build/openapi.json .
ENV NEXT_TELEMETRY_DISABLED=1
RUN node ../node_modules/openapi-typescript/bin/cli.js openapi.json --output lib/api/schema.d.ts \
    && node scripts/limits.mjs openapi.json lib/api/limits.ts \
    && node node_modules/next/dist/bin/next build \
    && node scripts/compress.mjs out

# ── The process's own packages and modules, with their bytecode: a read-only container writes none ───────────────────
FROM python:3.13-slim AS process
# Of several libraries, debug symbols are the larger part; `strip` takes them away.
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
# Not before it is needed: what is above is made once for all images.
ARG SERVICE
WORKDIR /build
COPY requirements.lock pyproject.toml ./
COPY deploy/image.py deploy/
COPY services/parts.toml services/
COPY servicekit/__init__.py servicekit/parts.py servicekit/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m deploy.image requirements "$SERVICE" > requirements.txt \
    && pip install --quiet --disable-pip-version-check --root-user-action=ignore --require-hashes --no-deps \
        --no-compile --target /app/lib -r requirements.txt \
    && python -m deploy.image strip /app/lib
COPY package.json ./
COPY gateway gateway
COPY local local
COPY services services
COPY servicekit servicekit
COPY supabase supabase
COPY --from=contract /build/gen/concerto concerto
RUN python -m deploy.image assemble "$SERVICE" /app \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '^/app/lib/' /app \
    && python -m deploy.image load "$SERVICE" /app

# ── What all images share: Python without its installers, and an account that owns nothing ───────────────────────────
FROM python:3.13-slim AS runtime
RUN groupadd --gid 10001 concerto \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin concerto \
    && python -c "import ensurepip, pip, shutil; [shutil.rmtree(module.__path__[0]) for module in (ensurepip, pip)]" \
    && rm -f /usr/local/bin/pip* /usr/bin/pip* \
    && stdlib="$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && python -m compileall -q -l "$stdlib" \
    && for package in asyncio collections concurrent ctypes email encodings html http importlib json logging \
        multiprocessing pathlib re urllib zoneinfo; do python -m compileall -q "$stdlib/$package" || exit 1; done
ENV PYTHONPATH=/app:/app/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CONCERTO_ENV_FILE=/dev/null
WORKDIR /app
LABEL org.opencontainers.image.title="Concerto" \
    org.opencontainers.image.description="A backend for AI chat products: Python gRPC microservices on Supabase."
COPY --from=process /app /app
USER 10001:10001
STOPSIGNAL SIGTERM

# begin parts: stages
FROM runtime AS auth
ENV AUTH_HOST=0.0.0.0 AUTH_PORT=8003
EXPOSE 8003 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "servicekit.probe", "127.0.0.1:8003"]
CMD ["python", "-m", "services.auth"]

FROM runtime AS sessions
ENV SESSIONS_HOST=0.0.0.0 SESSIONS_PORT=8004
EXPOSE 8004 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "servicekit.probe", "127.0.0.1:8004"]
CMD ["python", "-m", "services.sessions"]

FROM runtime AS orchestrator
ENV ORCHESTRATOR_HOST=0.0.0.0 ORCHESTRATOR_PORT=8005
EXPOSE 8005 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "servicekit.probe", "127.0.0.1:8005"]
CMD ["python", "-m", "services.orchestrator"]
# end parts

FROM runtime AS gateway
ENV GATEWAY_HOST=0.0.0.0 GATEWAY_PORT=8000
COPY --from=modules /build/node_modules/swagger-ui-dist/swagger-ui.css \
    /build/node_modules/swagger-ui-dist/swagger-ui-bundle.js \
    /build/node_modules/swagger-ui-dist/favicon-32x32.png \
    node_modules/swagger-ui-dist/
COPY --from=web /build/web/out web/out
EXPOSE 8000 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "servicekit.probe", "http://127.0.0.1:8000/healthz"]
CMD ["python", "-m", "gateway"]

FROM modules AS embedded-modules
# The programs that only development uses.
RUN rm -rf node_modules/@bufbuild node_modules/typescript node_modules/openapi-typescript node_modules/swagger-ui-dist

FROM runtime AS supabase
USER 0:0
RUN install -d -o 10001 -g 10001 -m 0700 /data
USER 10001:10001
ENV CONCERTO_HOME=/data CONCERTO_EMBEDDED_HOST=0.0.0.0
COPY --from=embedded-modules /build/node_modules node_modules
EXPOSE 8001 8002
HEALTHCHECK --interval=15s --timeout=10s --start-period=90s --retries=3 CMD ["python", "-m", "local.cli", "status"]
CMD ["python", "-m", "local.cli", "up", "--only", "postgres,supabase"]

# hadolint ignore=DL3006
FROM ${SERVICE}
