# cxr-trt on a Jetson with JetPack 6: docker build -f docs/containers/jetson.Dockerfile -t cxr-trt:jetson .
# docker run --rm --runtime nvidia -v "$PWD:/data" cxr-trt:jetson build-engine edge -o edge.cxr --backend tensorrt
FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv g++ make \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY cxr_trt /src/cxr_trt
COPY plugins /src/plugins
RUN python3 -m venv --system-site-packages /opt/cxr-trt \
    && /opt/cxr-trt/bin/pip install --no-cache-dir '/src[jetson]' \
    && /opt/cxr-trt/bin/python /src/plugins/build.py --build /tmp/plugin \
    && rm -r /src /tmp/plugin

RUN mkdir /data \
    && /opt/cxr-trt/bin/cxr-trt doctor

ENV PATH=/opt/cxr-trt/bin:$PATH
WORKDIR /data
USER 1000
ENTRYPOINT ["cxr-trt"]
CMD ["--help"]
