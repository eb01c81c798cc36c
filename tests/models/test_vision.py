"""torchvision without torch's compiler: the compiler is there when something asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

NAMES = "print('torch._dynamo' in sys.modules, 'torch._dynamo.utils' in sys.modules)\n"


def output_of(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_compiler_is_loaded_when_torchvision_asks_it_or_torch_needs_it():
    """After the import nothing stands in for the compiler."""
    script = (
        "import sys\nfrom posebatch.models.networks import vision\n" + NAMES + "from torchvision.ops import roi_align\n"
        "print(roi_align.__globals__['is_compile_supported']('cpu'))\n"
        + NAMES
        + "import torch\nprint(torch._dynamo.utils.is_compile_supported('cpu'), torch._dynamo.is_compiling())\n"
    )
    supported = output_of(script)
    assert supported == ["False", "False", "True", "True", "True", "True", "False"]


def test_other_names_of_the_compiler_load_it():
    script = (
        "import sys\nfrom posebatch.models.networks.vision import compiler_unloaded\n"
        "with compiler_unloaded():\n"
        "    from torch._dynamo.utils import counters\n"
        + NAMES
        + "print(type(counters).__name__, sys.modules['torch._dynamo.utils'].counters is counters)\n"
    )
    assert output_of(script) == ["True", "True", "defaultdict", "True"]
