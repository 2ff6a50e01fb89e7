"""What MkDocs does besides its own: the README is the first page, links into the source become names, and a site that
would ask another one for an asset is not built."""

import re
from html.parser import HTMLParser
from pathlib import Path

OUTSIDE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:@import\s+|url\()\s*['"]?((?:[a-z]+:)?//[^'")\s]+)""", re.IGNORECASE)
INTO_SOURCE = re.compile(r"\[[^]]*\]\(\.\./((?:src|benchmarks|tests)/[^)#]+)\)")
LOADED = {"src", "srcset", "poster", "data"}  # attributes whose address a browser fetches by itself
RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "prefetch", "manifest"}


def on_config(config):
    """Adds the page of each data set to the navigation."""
    (data,) = (entry["Data"] for entry in config.nav if "Data" in entry)
    data += sorted(path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir, "data").glob("*.md"))


def on_files(files, config):
    """Adds the README as index.md."""
    from mkdocs.structure.files import File

    readme = Path(config.config_file_path).with_name("README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown, **_):
    """Names source files in the place of links that lead out of the pages."""
    return INTO_SOURCE.sub(r"`\1`", markdown)


def on_post_build(config):
    """Refuses a site that is not whole by itself."""
    from mkdocs.exceptions import PluginError

    found = outside_assets(Path(config.site_dir))
    if found:
        raise PluginError("assets of elsewhere: " + "; ".join(found[:5]))


def outside_assets(site: Path) -> list[str]:
    """`FILE: ADDRESS` of everything that a browser would fetch from another site to show this one."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            page = _Page()
            page.feed(path.read_text(encoding="utf-8"))
            addresses = page.addresses
        elif path.suffix == ".css":
            addresses = IN_STYLE.findall(path.read_text(encoding="utf-8"))
        else:
            continue
        found += [f"{path.relative_to(site)}: {address}" for address in addresses]
    return found


class _Page(HTMLParser):
    """Collects outside addresses of a page's assets; links that a person follows are none."""

    def __init__(self):
        super().__init__()
        self.addresses = []
        self.in_style = False

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.in_style = tag == "style"
        candidates = [value for name, value in given.items() if name in LOADED]
        if tag == "link" and RELATIONS & set(given.get("rel", "").split()):
            candidates.append(given.get("href", ""))
        parts = [part.strip() for value in candidates for part in value.split(",")]
        self.addresses += [part for part in parts if OUTSIDE.match(part) and not part.startswith("data:")]
        self.addresses += IN_STYLE.findall(given.get("style", ""))

    def handle_endtag(self, tag):  # noqa: ARG002 (its caller names it)
        self.in_style = False

    def handle_data(self, data):
        if self.in_style:
            self.addresses += IN_STYLE.findall(data)
