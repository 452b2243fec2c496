"""What the docs tell readers to type exists: commands, flags, configurations, bindings, links."""

import html
import importlib.util
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import gin
import pytest

import robgan_tf

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "tools" / "README.md", ROOT / "benchmarks" / "README.md"]
)
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_COMMAND = re.compile(r"(?:^|[\s(/])python3?(?:\.\d+)? (-m robgan_tf\.(\w+)|((?:tools|benchmarks)/[\w/]+\.py))([^`]*)")
# Of absl itself, and those of `command_line.define_config_flags`.
_COMMON = {"help", "verbosity"}
_CONFIG = {"gin_file", "gin_param"}
# All pages of the site beside each other, each as wide as a device is, and what a browser makes of them.
FRAMES = """<!doctype html><body>{frames}<script>
addEventListener("load", () => {{
  const frames = [...document.querySelectorAll("iframe")];
  document.title = JSON.stringify(frames.map(frame => {{
    const page = frame.contentDocument, style = part => frame.contentWindow.getComputedStyle(part);
    return {{
      page: frame.getAttribute("src"),
      spare: frame.clientWidth - page.documentElement.scrollWidth,
      menu: page.querySelector(".navbar").getBoundingClientRect().height,
      missing: [...page.images].filter(image => !image.naturalWidth).map(image => image.src),
      // Tables and code that scroll by themselves have a shadow, and nothing opaque over it.
      unmarked: [...page.querySelectorAll("table, pre")].filter(part => part.scrollWidth > part.clientWidth)
        .flatMap(part => [part, ...part.querySelectorAll("code, th, td")])
        .filter(part => part.matches("table, pre") ? !style(part).backgroundImage.includes("gradient")
          : style(part).backgroundColor != "rgba(0, 0, 0, 0)" && part.matches("pre code, th, td"))
        .map(part => part.outerHTML.slice(0, 200)),
    }};
  }}));
}});
</script>"""


def code(text):
    """Lines of code blocks and inline code of a page, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", text)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return lines + re.findall(
        r"`([^`]+)`", "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    )


def commands(page):
    """(script, arguments) of each command of this project on a page; a script is a path in the repository."""
    found = []
    for line in code(page.read_text(encoding="utf-8")):
        match = _COMMAND.search(line)
        if match:
            _, module, tool, rest = match.groups()
            arguments = shlex.split(rest.rstrip(")"), comments=True)
            found.append((tool or f"robgan_tf/{module}.py", [one for one in arguments if one.startswith("--")]))
    return found


ALL = [(page, *command) for page in PAGES for command in commands(page)]


def flags_of(script):
    """Names of the flags that a script defines, read from its text."""
    text = (ROOT / script).read_text(encoding="utf-8")
    found = set(re.findall(r"""(?:flags\.DEFINE_\w+|define_path|add_argument)\(\s*["'](?:--)?(\w+)["']""", text))
    return found | _COMMON | (_CONFIG if "define_config_flags(" in text else set())


def test_there_are_commands_to_check():
    assert len(ALL) > 40 and {"docs", ""} <= {page.parent.name for page, *_ in ALL} | {""}


@pytest.mark.parametrize(
    ("page", "script", "arguments"), ALL, ids=[f"{page.name}-{number}" for number, (page, *_) in enumerate(ALL)]
)
def test_commands_name_scripts_flags_and_configurations_that_exist(page, script, arguments):
    assert (ROOT / script).is_file()
    from robgan_tf.experiment import build as experiment  # noqa: F401 - makes everything known to gin

    for argument in arguments:
        name, _, value = argument[2:].partition("=")
        assert name in flags_of(script) or name.removeprefix("no") in flags_of(script), f"{script} has no --{name}"
        if name == "gin_file" and value.startswith("gin/"):
            assert (ROOT / value).is_file(), value
        elif name == "gin_file" and re.fullmatch(r"[\w/.]+\.gin", value):  # a file of the reader's own
            assert f"`{value}`" in page.read_text(encoding="utf-8"), f"{page.name} does not say what {value} is"
        elif name == "gin_param":
            gin.parse_config(value)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_bindings_that_are_named_exist(page):
    if page.name == "your_own_defence.md":
        pytest.skip("its bindings are of its own files, which your_own_defence_test.py reads")
    from robgan_tf.experiment import build as experiment  # noqa: F401 - makes everything known to gin

    spans = code(page.read_text(encoding="utf-8"))
    bindings = [span for span in spans if re.fullmatch(r"(\w+/)?[A-Z]\w+\.\w+ = [^#]+", span)]
    for binding in bindings:
        if not binding.startswith("Name."):  # stands for any
            gin.parse_config(binding)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_to_files_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_menu_and_every_image_has_words():
    menu = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert set(menu) == pages and len(menu) == len(set(menu))
    for page in PAGES:
        assert "![](" not in page.read_text(encoding="utf-8"), page


def test_the_api_pages_cover_every_name_that_the_package_exports():
    shown = {
        name
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)
    }
    table = (ROOT / "docs" / "api" / "index.md").read_text()
    for name, module in robgan_tf._HOME.items():
        assert module in shown and f"[`{name}`]" in table, name
    for module in shown:
        assert importlib.util.find_spec(module) is not None, module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    assert "project" in (site / "api" / "attacker.html").read_text(encoding="utf-8")  # a method of threat models
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    for path, text in pages.items():
        fetched = re.findall(r"<(?:script|img|link)\b[^>]*?(?:src|href)=\"(https?://[^\"]+)", text)
        assert not fetched, (path.name, fetched)  # the site needs no network
        for link in re.findall(r"<(?:a|img)\b[^>]*?(?:href|src)=\"([^\"#]+)", text):
            if path.name != "404.html" and not re.match(r"\w+:", link):
                assert (path.parent / link).exists(), (path.name, link)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 820, 390])
def test_no_page_of_the_site_scrolls_sideways_and_the_menu_is_one_row(site, tmp_path, width):
    addresses = sorted(path.as_uri() for path in site.rglob("*.html") if path.name != "404.html")
    frames = "".join(f'<iframe src="{address}" width="{width}" height="900"></iframe>' for address in addresses)
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--dump-dom", (tmp_path / "frames.html").as_uri()]
    document = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    seen = json.loads(html.unescape(re.search("<title>(.*?)</title>", document)[1]))
    assert len(seen) == len(addresses) > 20
    for page in seen:
        assert page["spare"] >= 0 and page["menu"] <= 60, page
        assert page["missing"] == page["unmarked"] == [], page
