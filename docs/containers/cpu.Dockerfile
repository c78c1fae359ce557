# cxr-trt for processors: docker build -f docs/containers/cpu.Dockerfile -t cxr-trt .
# docker run --rm -v "$PWD:/data" cxr-trt score xrays/ -o scores.csv
FROM python:3.12-slim-bookworm

COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY cxr_trt /src/cxr_trt
RUN python -m venv /opt/cxr-trt \
    && /opt/cxr-trt/bin/pip install --no-cache-dir /src \
    && rm -r /src

# The engine must be built, and agree with its scoring graph, or there is no image.
RUN mkdir /data \
    && /opt/cxr-trt/bin/cxr-trt build-engine edge --no-tune -o /opt/cxr-trt/edge.cxr

ENV PATH=/opt/cxr-trt/bin:$PATH CXR_TRT_ENGINE=/opt/cxr-trt/edge.cxr
WORKDIR /data
USER 1000
ENTRYPOINT ["cxr-trt"]
CMD ["--help"]
