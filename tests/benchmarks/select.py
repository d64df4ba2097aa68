"""Run `replay.py`: what choosing a prompt costs, and what it loses. `python tests/benchmarks/select.py --help` says how.

The other scripts of this folder find this file where Python looks for its own module `select`; it hands them that one.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

if __name__ == "__main__":
    from replay import main

    main()
else:
    folder = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec("select", [path for path in sys.path if os.path.abspath(path) != folder])
    sys.modules["select"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["select"])
