"""`python -m cxr_trt`."""

from cxr_trt.cli import main

main(prog_name="cxr-trt")
