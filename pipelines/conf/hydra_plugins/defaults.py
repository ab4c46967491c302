"""Hydra plugin: gives `config.yaml` the defaults that the configuration dataclasses declare, as `defaults_of_code`.

`dvc exp run -S …` and `pipelines.params` compose with this folder as Hydra's plugin path (.dvc/config).
"""

import sys
from pathlib import Path

from dvc.exceptions import InvalidArgumentError
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[3]))  # the project of this file, whichever one is installed

from pipelines.overrides import check_renamed
from pipelines.sections import ParamsError, defaults, init_file, key_lists


def check_arguments(arguments: list[str]) -> None:
    """Raises InvalidArgumentError for a former name in `dvc exp run -S`: DVC offers no other place to check them."""
    for argument in arguments:
        override = argument.removeprefix("-S").removeprefix("--set-param=").lstrip("+~")
        name, _, value = override.partition("=")
        try:
            check_renamed(name, value)
        except ParamsError as error:
            raise InvalidArgumentError(str(error)) from None


check_arguments(sys.argv[1:])
OmegaConf.register_new_resolver("init_file", init_file, replace=True)
OmegaConf.register_new_resolver(
    "key_lists", lambda *sections: OmegaConf.create(key_lists(*sections)), replace=True
)
ConfigStore.instance().store("defaults_of_code", defaults())
