# chestxray with its DICOM node: no compiler, no root, everything pinned by constraints.txt.
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim -t chestxray .
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
 && python -m venv /opt/chestxray \
 && /opt/chestxray/bin/pip install --no-cache-dir --only-binary :all: -c constraints.txt \
        "chestxray[pacs] @ file://$(ls /wheel/*.whl)"

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin chestxray \
 && install -d -o chestxray -g chestxray -m 0700 /var/lib/chestxray
COPY --from=wheel /opt/chestxray /opt/chestxray
USER chestxray
ENV PATH=/opt/chestxray/bin:$PATH
EXPOSE 8000 11112
ENTRYPOINT ["chestxray"]
