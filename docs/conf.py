"""The settings of the documentation site, which `make docs` builds with Sphinx. Pages are Markdown (MyST)."""

project = "cxr-trt"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "cxr-trt"
html_show_copyright = False
html_copy_source = False

highlight_language = "sh"  # a block without a language is a shell's
myst_heading_anchors = 3  # links to headings, as on GitHub
