"""Sphinx configuration: MyST pages, executed on every build; docstrings as they
are written in the source.
"""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

# The pages' kernels inherit these. One thread: on a busy machine two threads wait for each other
# most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Pages run in temporary folders; a page may import `examples`, which is not installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

project = "bayesnn"
author = "the bayesnn authors"
copyright = "the bayesnn authors, Apache-2.0"
release = installed_version("bayesnn")
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "docstrings",  # docs/_ext
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "_ext", "tables", "developer", "**.ipynb_checkpoints"]

# Pages.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # a cache would not notice that the library has changed
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 1800  # of a cell, on a machine that others use too
nb_output_stderr = "remove"
nb_merge_streams = True
nb_number_source_lines = False

# The reference.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
add_module_names = False
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

# Looks.
html_theme = "furo"
html_title = "bayesnn"
html_static_path = ["_static"]
html_css_files = ["bayesnn.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"
