# chestxray in a container: no compiler, no root, everything pinned by constraints.txt.
#   docker build -t chestxray .                        # serves: the last stage
#   docker build --target pacs -t chestxray-pacs .     # the DICOM node
#   docker build --target train -t chestxray-train .   # trains, on CPU or GPU
# docs/image.md says how each is run, and what is left out of it and why.
ARG PYTHON_IMAGE=python:3.11-slim

# --- the wheel
FROM ${PYTHON_IMAGE} AS wheel
# pip's own settings: a package index, or a folder of wheels, of one's own.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

# --- an environment of it and what serving needs; pip stays outside
FROM ${PYTHON_IMAGE} AS environment
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN python -m venv --without-pip /opt/chestxray
# Byte code is made once everything is there, see below.
ENV INSTALL="pip --python /opt/chestxray install --no-cache-dir --no-compile --only-binary :all: \
    --root-user-action ignore -c /constraints.txt" \
    COMPILE="python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/chestxray/lib"
COPY constraints.txt /
COPY --from=wheel /wheel /wheel
RUN $INSTALL /wheel/*.whl

# --- less what nothing here calls
FROM environment AS lean
WORKDIR /opt/chestxray/lib
RUN cd python3*/site-packages \
 # A second ONNX Runtime, for programs in C; and tools that make models.
 && rm -r onnxruntime/capi/libonnxruntime.so.* onnxruntime/transformers onnxruntime/quantization \
        onnxruntime/tools \
 && find numpy -type d -name tests -prune -exec rm -r {} + \
 && rm -r pydicom/data/test_files \
 # Of its many codecs those that DICOM has: fewer decoders of what strangers send.
 && find imagecodecs -name '_*.so' ! -name '_shared*' ! -name '_imcd.*' ! -name '_jpeg8.*' \
        ! -name '_jpegls.*' ! -name '_jpeg2k.*' -delete \
 && ldd imagecodecs/_*.so | grep -o 'imagecodecs\.libs/[^ ]*' | sort -u > /needed \
 && test -s /needed \
 && find imagecodecs.libs -type f | grep -v -F -x -f /needed | xargs rm

FROM lean AS lean-serve
RUN $COMPILE

FROM lean AS lean-pacs
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN $INSTALL "chestxray[pacs] @ file://$(ls /wheel/*.whl)" && $COMPILE

# PyTorch is the index's: from the public one a build for GPUs, which computes on CPUs too. Another
# index, or a folder of wheels, may have a smaller one for CPUs alone. A file of it is for Python 3.12.
FROM environment AS learning
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN $INSTALL "chestxray[train] @ file://$(ls /wheel/*.whl)" && $COMPILE -x /py312_

# --- what all targets have: a user who may nothing, and labels
FROM ${PYTHON_IMAGE} AS base
# What is not compiled now is compiled at every start, where nothing can be written; and the public
# image has no byte code of the standard library.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin chestxray \
 && python -m compileall -q -x '/(tests?|idlelib|lib2to3|turtledemo|(site|dist)-packages)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 # What a base image may have kept of apt; nothing is installed any more.
 && rm -rf /var/cache/apt /var/lib/apt/lists
ENV PATH=/opt/chestxray/bin:$PATH
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="chestxray" \
      org.opencontainers.image.description="Chest X-ray pneumonia classifier. Not a medical device." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# --- target: the DICOM node. Its configuration and the folder of its queue are mounted.
FROM base AS pacs
RUN install -d -o chestxray -g chestxray -m 0700 /var/lib/chestxray
COPY --from=lean-pacs /opt/chestxray /opt/chestxray
# A number, here and below: Kubernetes cannot tell of a name that it is not root's.
USER 10001:10001
EXPOSE 11112
ENTRYPOINT ["chestxray"]
CMD ["pacs", "run", "/etc/chestxray/pacs.toml"]

# --- target: training. Data, configuration and runs are mounted in its work folder.
FROM base AS train
RUN install -d -o chestxray -g chestxray /work
COPY --from=learning /opt/chestxray /opt/chestxray
# matplotlib keeps a cache.
ENV MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["chestxray"]
CMD ["train", "--help"]

# --- target, and the default: the service
FROM base AS serve
COPY --from=lean-serve /opt/chestxray /opt/chestxray
# Loopback within a container reaches nobody. Who publishes the port decides who may ask: beyond the
# own machine with CHESTXRAY_API_KEYS and CHESTXRAY_REQUIRE_API_KEY=true.
ENV CHESTXRAY_HOST=0.0.0.0 CHESTXRAY_REQUIRE_API_KEY=false
USER 10001:10001
EXPOSE 8000
# Not urllib, which would ask a proxy where the environment names one.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "-c", "\
import os, sys; from http.client import HTTPConnection; \
host, port = os.environ.get('CHESTXRAY_HOST'), os.environ.get('CHESTXRAY_PORT'); \
server = HTTPConnection(host or '127.0.0.1', port or 8000, timeout=4); \
server.request('GET', '/readyz'); \
sys.exit(server.getresponse().status != 200)"]
ENTRYPOINT ["chestxray"]
CMD ["serve"]
