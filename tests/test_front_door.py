"`import zero_shot_distill`: quick, and every name that it promises is there."

import subprocess
import sys

import pytest

import zero_shot_distill

HEAVY = ("torch", "openai", "transformers", "pandas", "numpy", "datasets", "matplotlib", "pydantic", "rich")


@pytest.mark.parametrize("name", zero_shot_distill.__all__)
def test_every_public_name_resolves(name):
    value = getattr(zero_shot_distill, name)
    assert value.__name__ == name
    assert value.__doc__
    assert value is getattr(zero_shot_distill, name)


def test_names_are_listed_before_they_are_imported():
    assert set(zero_shot_distill.__all__) < set(dir(zero_shot_distill))
    assert len(set(zero_shot_distill.__all__)) == len(zero_shot_distill.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Projekt'"):
        zero_shot_distill.Projekt  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Projekt'"):
        from zero_shot_distill import Projekt  # noqa: F401


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, zero_shot_distill as z; z.__version__; dir(z); print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_a_light_name_does_not_load_torch():
    names = ["load_task", "PromptTemplate", "Price", "HostedTeacher", "TeacherClient"]
    code = f"import sys, zero_shot_distill as z; print([name for name in {names} if getattr(z, name) and {{'torch', 'transformers'}} & set(sys.modules)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
