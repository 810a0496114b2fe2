"""The configuration: one YAML file, checked whole before anything runs, and the Python objects it stands for."""

from perennial.config.building import Built, build
from perennial.config.loading import Loaded, load, parse
from perennial.config.problems import Problem, Problems
from perennial.config.recording import from_objects
from perennial.config.records import Config
from perennial.config.schema import json_schema
from perennial.config.writing import to_yaml

__all__ = [
    "Built",
    "Config",
    "Loaded",
    "Problem",
    "Problems",
    "build",
    "from_objects",
    "json_schema",
    "load",
    "parse",
    "to_yaml",
]
