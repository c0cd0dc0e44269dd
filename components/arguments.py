"""Runs a command with the parameters of a Makefile target put in: what stands in `PHOTO=...` is data, never code.

A recipe names its parameters and never holds their values, so that neither make nor a shell reads them. make hands the
values over in the environment, and `python -m components.arguments COMMAND ...` replaces in the words of COMMAND:

- ``{PHOTO}``: by the value, as it is;
- ``{TO:optional}``: the same, and an empty value takes the whole word away;
- ``{SET:each}``: the word once for each of the values, which blanks separate;
- ``{ARGS:words}``: by the words of the value, quoted as for a shell: nothing in them is expanded.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence

_PARAMETER = re.compile(r"\{([A-Z]+)(?::(optional|each|words))?\}")


def filled(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """``command`` with the parameter of each word, one at most, replaced from ``values``; one that is missing is empty.

    Raises:
        ValueError: a quotation in the value of a ``words`` parameter does not end.
    """
    words: list[str] = []
    for word in command:
        found = _PARAMETER.search(word)
        if found is None:
            words.append(word)
            continue
        name, kind = found.groups()
        value = values.get(name, "")
        try:
            split = shlex.split(value) if kind == "words" else value.split() if kind == "each" else [value]
        except ValueError as error:
            raise ValueError(f"{name}={value}: {error}: end the quotation, or put \\ before the sign") from error
        if kind == "optional" and not value:
            continue
        words += [word[: found.start()] + part + word[found.end() :] for part in split]
    return words


def main() -> None:
    """Become the command; 2 where a parameter is wrong, 127 where there is no such program."""
    try:
        command = filled(sys.argv[1:], os.environ)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}: delete .venv and call make again, which installs it", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
