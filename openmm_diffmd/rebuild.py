"""How the compiled parts of the package are built again."""

REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps ."
