"Install zero_shot_distill; every fact comes from settings.ini."

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
settings = ConfigParser(delimiters=["="])
settings.read(here / "settings.ini", encoding="utf-8")
cfg = settings["DEFAULT"]
package = cfg["lib_name"]


def absolute(link: re.Match) -> str:
    "Lead a link of the README into the repository: the page of a file, of a picture the picture itself."
    kind = "raw" if link[1].endswith((".png", ".svg")) else "blob"
    return f"]({cfg['git_url']}/{kind}/{cfg['branch']}/{link[1]}{link[2] or ''})"


def long_description() -> str:  # Markdown
    "Take the README with links that lead somewhere from the package index, too."
    readme = (here / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)", absolute, readme) if cfg.get("git_url") else readme


setup(
    name=package,
    version=cfg["version"],
    description=cfg["description"],
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    url=cfg["git_url"],
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={
        "dev": cfg["dev_requirements"].split(),
        "onnx": cfg["onnx_requirements"].split(),
        "ray": cfg["ray_requirements"].split(),
        "gguf": cfg["gguf_requirements"].split(),
    },
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    # The definitions and the experiment notebooks travel inside the wheel, so that `zsd` finds them after `pip install`.
    packages=[*find_packages(include=[package, f"{package}.*"]), f"{package}.data", f"{package}.experiments"],
    package_dir={package: package, f"{package}.data": "data", f"{package}.experiments": "nbs/experiments"},
    package_data={
        f"{package}.data": ["**/*.yaml", "explorer/*.js", "explorer/*.css", "**/*.json", "**/*.jsonl", "**/*.md"],
        f"{package}.experiments": ["*.ipynb"],
    },
)
