"""Reading gin files: what is wrong with them is said in a line with file, line and fix, not in the parser's words.

No TensorFlow here, but for what the files themselves import.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import io
import logging
import pathlib
import re
import tokenize
from collections.abc import Sequence

import gin

from robgan_tf import gin_files

_INCLUDE = re.compile(r"""^\s*include\s+(['"])(.*)\1""")
_WORDS = {"true": "True", "false": "False", "none": "None", "null": "None", "nan": "a number", "inf": "1e30"}
_OWN_PART = "a part of your own is known once the file begins with `import my_module`"


class ConfigurationTextError(ValueError):
    """A configuration that can't be read; the message is one line."""


def read(files: Sequence[str], params: Sequence[str]):
    """Reads configurations into gin: files with their includes, then single bindings, which win.

    Includes are looked for as given, in all folders above the given files, and among what comes with the package:
    `include 'gin/digits.gin'` works from any working directory, and in files of your own.

    Args:
        files: paths of files.
        params: bindings, "Name.argument = value".

    Raises:
        ConfigurationTextError: for text that is no configuration, with file, line and what to write instead.
    """
    texts = check_text(files)
    for folder in _folders(files):
        gin.add_config_file_search_path(folder)
    # For each folder where an include is not, gin would log an error.
    logging.disable(logging.ERROR)
    try:
        gin.parse_config_files_and_bindings(list(files), list(params))
    except Exception as error:  # gin raises many kinds, all of them about the user's text
        raise ConfigurationTextError(_explained(error, texts, params)) from error
    finally:
        logging.disable(logging.NOTSET)
    _check_macros(texts, params)


def check_text(files: Sequence[str]) -> dict[str, list[str]]:
    """Returns the lines of files and of what they include, by path.

    Raises:
        ConfigurationTextError: where one is not UTF-8 text, is missing, or includes itself.
    """
    texts = {}
    for file in files:
        _look_through(file, ["", *_folders(files)], texts, ())
    return texts


def _check_macros(texts: dict[str, list[str]], params: Sequence[str]):
    """Raises where a macro is set to itself, by way of others or not: gin would follow it for ever."""
    lines = [line for lines in (*texts.values(), params) for line in lines]
    names = {match[1] for line in lines if (match := re.match(r"\s*(\w+)\s*=", line))}
    # The value that won, in which a macro stands as %name.
    behind = {name: re.findall(r"%(\w+)", repr(gin.query_parameter(f"%{name}"))) for name in sorted(names)}

    def follow(name, way):
        if name in way:
            circle = " = ".join(f"%{one}" for one in (*way[way.index(name) :], name))
            where = _find_line(f"%{name}", texts, params)
            raise ConfigurationTextError(f"{where}macros are set in a circle, {circle}: give one of them a value")
        for other in behind.get(name, ()):
            follow(other, (*way, name))

    for name in behind:
        follow(name, ())


def _folders(files: Sequence[str]) -> list[str]:
    above = [str(folder) for file in files for folder in pathlib.Path(file).resolve().parents]
    return list(dict.fromkeys([*above, *map(str, gin_files.ROOTS)]))


def _look_through(file: str, folders: Sequence[str], texts: dict, including: tuple[str, ...]):
    """Gathers the lines of a file and of what it includes, by path; raises where that can't be done."""
    if file in including:
        circle = " includes ".join([*including[including.index(file) :], file])
        raise ConfigurationTextError(f"{circle}: take one of these includes out.")
    data = pathlib.Path(file).read_bytes()
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ConfigurationTextError(f"{file} begins with a byte order mark: save it as UTF-8 without one (no BOM).")
    try:
        lines = data.decode("utf-8").splitlines()
        broken = data.find(b"\0")  # as all of UTF-16 has them
    except UnicodeDecodeError as error:
        broken = error.start
    if broken >= 0:
        line = data[:broken].count(b"\n") + 1
        raise ConfigurationTextError(f"{file}, line {line}: this is not UTF-8 text; save the file as UTF-8.")
    texts[file] = lines
    for number, line in enumerate(lines, 1):
        match = _INCLUDE.match(line)
        if match is None:
            continue
        paths = [str(pathlib.Path(folder, match[2])) if folder else match[2] for folder in folders]
        found = next((path for path in paths if pathlib.Path(path).is_file()), None)
        if found is None:
            near = difflib.get_close_matches(match[2], [path for path, _ in gin_files.listing()], n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationTextError(f"{file}, line {number}: include '{match[2]}': there is no such file{meant}")
        if found not in texts or found in (*including, file):
            _look_through(found, folders, texts, (*including, file))


def _explained(error: Exception, texts: dict[str, list[str]], params: Sequence[str]) -> str:
    """Returns what an error of gin means, in one line that begins with the place."""
    text = str(error)
    if isinstance(error, (SyntaxError, tokenize.TokenError)) or "Failed to parse token" in text:
        place = re.search(r"\(([^()]*), line (\d+)\)", text)
        file = getattr(error, "filename", None) or (place and place[1])
        number = getattr(error, "lineno", None) or (place and int(place[2])) or 1
        if isinstance(error, tokenize.TokenError):  # it does not say in which file
            file, number = _find_broken(texts), error.args[1][0]
        if file and file not in texts:  # a module that a configuration imports
            return f"{_importing(file, texts)}{file}, line {number}: {getattr(error, 'msg', text)}"
        lines = texts.get(file, list(params))
        number = _beginning(lines, min(number, len(lines)))
        line = lines[number - 1].strip() if lines else ""
        return f"{_place(file if file in texts else None, number)}{line}: {_what_is_wrong_with(line)}"
    macro = re.search(r"No bindings specified for '(?:.*/)?([^/']+)/gin\.macro'", text)
    if macro:
        names = {match[1] for lines in texts.values() for line in lines if (match := re.match(r"(\w+)\s*=", line))}
        where = _find_line(f"%{macro[1]}", texts, params)
        return (
            f"{where}the macro %{macro[1]} is nowhere set{_meant(macro[1], names)} (a macro is set by `{macro[1]} = 1`)"
        )
    # gin adds the places, from the innermost include to the outermost file.
    place = re.search(r'In (?:file "([^"]+)"|bindings string), line (\d+)', text)
    where = _place(place[1], int(place[2])) if place else ""
    message = re.sub(r"\s+", " ", re.split(r"\n\s*In (?:file|bindings)", text)[0]).strip()
    unknown = re.search(r"No configurable matching (?:reference )?'@?([\w./]+?)(?:\(\))?'", message)
    if unknown:
        name = unknown[1].rpartition("/")[2]
        return f"{where}nothing is named {name}{_meant(name, _known_names())} ({_OWN_PART})"
    several = re.search(r"Ambiguous selector '([^']+)', matches \[(.*?)\]", message)
    if several:
        return f"{where}several parts are named {several[1]}: write one of {several[2].replace(chr(39), '')}"
    parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", message)
    if parameter:
        arguments = _arguments(parameter[1])
        return (
            f"{where}{parameter[1]} has no argument {parameter[2]}{_meant(parameter[2], arguments)}"
            f" (it has {', '.join(arguments)})"
        )
    module = re.search(r"No module named '([^']+)'", message)
    if module:
        return (
            f"{where}there is no module {module[1]}: put {module[1].partition('.')[0]}.py into the folder that you "
            "start from, or name its folder in PYTHONPATH."
        )
    line = texts[place[1]][int(place[2]) - 1].strip() if place and place[1] in texts else ""
    if line.startswith(("import ", "from ")):
        return f"{where}{line} fails: {type(error).__name__}: {message[:500]}"
    return f"{where}{message[:500]}"


def _importing(module: str, texts: dict[str, list[str]]) -> str:
    """Returns the place of the line that imports the module of a file."""
    for file, lines in texts.items():
        for number, line in enumerate(lines, 1):
            if re.match(rf"(import|from)\s.*\b{re.escape(pathlib.Path(module).stem)}\b", line):
                return f"{_place(file, number)}{line.strip()} fails: "
    return ""


def _find_broken(texts: dict[str, list[str]]) -> str | None:
    """Returns the first file that can't be split into tokens."""
    for file, lines in texts.items():
        try:
            list(tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline))
        except (tokenize.TokenError, SyntaxError):
            return file
    return None


def _beginning(lines: Sequence[str], number: int) -> int:
    """Returns the line with the bracket that is still open where gin gave up, at the line `number`; else that line."""
    for start in range(number - 1, 0, -1):
        if re.match(r"\s*[\w./]+\s*=", lines[start - 1]):
            return start if _is_open("\n".join(lines[start - 1 : number - 1])) else number
    return number


def _place(file: str | None, number: int) -> str:
    return f"{file}, line {number}: " if file else "--gin_param: "


def _find_line(text: str, texts: dict[str, list[str]], params: Sequence[str]) -> str:
    """Returns the place of the last line that holds `text`, the one that wins."""
    for file, lines in texts.items():
        for number, line in reversed(list(enumerate(lines, 1))):
            if re.search(rf"{re.escape(text)}\b", line.partition("#")[0]):
                return _place(file, number)
    return _place(None, 0) if any(text in param for param in params) else ""


def _what_is_wrong_with(line: str) -> str:
    """Returns what keeps a line from being a binding, and what to write."""
    name, equals, value = (part.strip() for part in line.partition("#")[0].partition("="))
    if not equals:
        return "a binding is written Name.argument = value"
    if not value:
        return "the value is missing"
    odd = next((sign for sign in line.partition("#")[0] if sign.isspace() and sign not in " \t"), None)
    if odd:
        return f"this has a space of another kind (U+{ord(odd):04X}); write a plain one"
    if any(sign in value for sign in "“”„‟‘’‚«»`´"):
        return "quotation marks are the plain ones, \" or '"
    if value.startswith("="):
        return f"a binding has one =; write {name} = {value[1:].strip()}"
    if value.endswith((";", ",")):
        return f"write {name} = {value[:-1].strip()}, without {value[-1]} at the end"
    if re.search(r"\s[\w./]+\.\w+\s*=", value):
        return "each binding has a line, or a --gin_param, of its own"
    quotient = re.fullmatch(r"(-?[\d.]+)\s*/\s*([\d.]+)", value)
    if quotient and float(quotient[2]):
        number = float(quotient[1]) / float(quotient[2])
        if name.endswith("epsilon") and float(quotient[2]) == 255:  # elsewhere pixels are in [0, 1]
            return f"gin does not calculate, and pixels are in [-1, 1]: write {name} = {2 * number:.6g} for {value}"
        return f"gin does not calculate; write {name} = {number:.6g}"
    if re.fullmatch(r"-?\d+,\d+", value):
        return f"a decimal has a point; write {name} = {value.replace(',', '.')} (a list stands in brackets)"
    if value.lower() in _WORDS:
        return f"write {name} = {_WORDS[value.lower()]}"
    if re.fullmatch(r"[-+*/().\s\deE]*\d[-+*/().\s\deE]*", value) and re.search(r"\d\s*[-+*/]", value):
        return "gin does not calculate; write the number itself"
    if re.fullmatch(r"[A-Za-z_][\w./-]*", value):
        return f'text stands in quotes: {name} = "{value}"; a part of the configuration has an @: {name} = @{value}'
    if value.count('"') % 2 or value.count("'") % 2:
        return "a quotation mark is not closed"
    if _is_open(value):
        return "a bracket is not closed"
    try:
        ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return "the value is neither a number, text in quotes, True, False, None, a list, @Name nor %macro"
    return "a binding is written Name.argument = value"


def _is_open(line: str) -> bool:
    text = re.sub("#.*", "", line)
    return any(text.count(one) > text.count(other) for one, other in ("()", "[]", "{}"))


def _known_names() -> set[str]:
    """The names that the package's own configurations use."""
    names = set()
    for root in gin_files.ROOTS:
        for path in (root / "gin").rglob("*.gin"):
            for line in path.read_text(encoding="utf-8").splitlines():
                names.update(re.findall(r"@(?:\w+/)*(\w+)|^(?:\w+/)*(\w+)\.\w+ =", line.partition("#")[0]))
    return {name for pair in names for name in pair if name}


def _arguments(name: str) -> list[str]:
    try:
        return list(inspect.signature(gin.get_configurable(name)).parameters)
    except ValueError:  # several of that name
        return []


def _meant(name: str, names) -> str:
    lower = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"; did you mean {lower[near[0]]}?" if near else ""
