"""Imports every module that may hold a part which only configurations name, so that gin knows them."""

import importlib
import pkgutil

from robgan_tf import data, generation, losses, players, robustness, serving, training

for package in (data, losses, players, training, robustness, generation, serving):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
