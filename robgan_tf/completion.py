"""Completion of `robgan` in a shell: commands, their flags, and configurations.

eval "$(robgan completion bash)"     in ~/.bashrc
eval "$(robgan completion zsh)"      in ~/.zshrc, behind compinit
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from robgan_tf import command_line, gin_files

SHELLS = ("bash", "zsh")

_BASH = """\
_robgan() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}" words=""
  # bash cuts words at "=": --gin_file=gin/d are three of them.
  if [[ "$word" == "=" ]]; then word=""; fi
  if [[ "${{COMP_WORDS[COMP_CWORD-1]}} ${{COMP_WORDS[COMP_CWORD-2]:-}}" == *--gin_file* ]]; then
    COMPREPLY=($(compgen -W "{configurations}" -- "$word") $(compgen -f -X '!*.gin' -- "$word"))
    return
  fi
  if ((COMP_CWORD == 1)); then
    words="{commands}"
  else
    case "$command" in
{cases}
      configurations) words="" ;;
      completion) words="{shells}" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ "${{COMPREPLY[0]:-}}" == *= ]] && compopt -o nospace
}}
complete -o default -F _robgan robgan"""


def script(shell: str, commands: Iterable[str], others: Iterable[str]) -> str:
    """Returns the script that teaches a shell, "bash" or "zsh", to complete `robgan`.

    Args:
        shell: one of `SHELLS`.
        commands: names of modules of robgan_tf that have `define_flags`.
        others: names of further commands, without flags.
    """
    cases = []
    for command in commands:
        names = command_line.own_flags(importlib.import_module(f"robgan_tf.{command}").define_flags)
        words = " ".join(f"--{name}" if boolean else f"--{name}=" for name, boolean in names.items())
        cases.append(f'      {command}) words="{words}" ;;')
    text = _BASH.format(
        configurations=" ".join(path for path, _ in gin_files.listing()),
        commands=" ".join([*commands, *others]),
        cases="\n".join(cases),
        shells=" ".join(SHELLS),
    )
    return text if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{text}"
