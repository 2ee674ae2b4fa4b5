"""From a YAML file to checked options."""

from facerestore.config.load import load_options
from facerestore.config.schema import Options

__all__ = ["Options", "load_options"]
