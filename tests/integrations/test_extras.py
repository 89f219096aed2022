"""Nobody needs the libraries of integrations that they do not use."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tests.docs.markdown import text

LIBRARIES = {
    "openai": ("openai", "openai"),
    "pydantic_ai": ("pydantic-ai", "pydantic_ai"),
    "langchain": ("langchain", "langchain_core"),
    "openai_agents": ("openai-agents", "agents"),
}
# As if a library were not installed: it is not found, and neither is what it would bring.
WITHOUT = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def run(code: str, *hidden: str) -> subprocess.CompletedProcess[str]:
    program = WITHOUT.format(hidden=set(hidden)) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", LIBRARIES)
def test_an_integration_without_its_library_names_the_extra(module: str) -> None:
    extra, library = LIBRARIES[module]
    done = run(f"import wakeline.integrations.{module}", library)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: expected the package of '{library}")
    assert last.endswith(f"pip install '.[{extra}]' in a clone")


def test_the_worker_plugin_needs_no_extra() -> None:
    libraries = {"openai", "pydantic_ai", "langchain_core", "langgraph", "agents"}
    done = run(f"import wakeline.integrations.temporal; print({libraries!r} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


def test_every_extra_is_there_and_the_base_install_has_none_of_them() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert {extra for extra, _ in LIBRARIES.values()} <= set(project["optional-dependencies"])
    base = " ".join(project["dependencies"])
    assert not [name for name in ("openai", "pydantic", "langchain", "langgraph") if name in base]
