# cxr-trt on NVIDIA's TensorRT image: docker build -f docs/containers/tensorrt.Dockerfile -t cxr-trt:tensorrt .
# docker run --rm --gpus all -v "$PWD:/data" cxr-trt:tensorrt build-engine edge -o edge.cxr --backend tensorrt
# NVIDIA's image has TensorRT for Python, and nvcc for the plugin. Take the release that your driver supports.
FROM nvcr.io/nvidia/tensorrt:25.10-py3

COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY cxr_trt /src/cxr_trt
COPY plugins /src/plugins
RUN python3 -m venv --system-site-packages /opt/cxr-trt \
    && /opt/cxr-trt/bin/pip install --no-cache-dir '/src[cuda13]' \
    && /opt/cxr-trt/bin/python /src/plugins/build.py --build /tmp/plugin \
    && rm -r /src /tmp/plugin

# Without a GPU no engine can be built here: this shows that TensorRT and the plugin are found.
RUN mkdir /data \
    && /opt/cxr-trt/bin/cxr-trt doctor \
    && /opt/cxr-trt/bin/python -c 'import tensorrt'

ENV PATH=/opt/cxr-trt/bin:$PATH
WORKDIR /data
USER 1000
ENTRYPOINT ["cxr-trt"]
CMD ["--help"]
