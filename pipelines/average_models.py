"""Average the weights of two models that come from one training: the mean is often better elsewhere than either.

    python pipelines/average_models.py FIRST SECOND OUT

The description and the scores of OUT are those of FIRST.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save

from geoseg.model import find_bundle, save_bundle, weights_path


def main() -> int:
    """Average; the exit code."""
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    first, second = (find_bundle(name) for name in sys.argv[1:3])
    weights, others = (load_file(weights_path(bundle)) for bundle in (first, second))
    if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in others.items()}:
        print(f"{first.name} and {second.name} are not of one network", file=sys.stderr)
        return 3
    mean = {
        key: ((value.float() + others[key].float()) / 2).to(value.dtype) if value.is_floating_point() else value
        for key, value in weights.items()
    }
    plain = replace(first, agreement={})  # it was measured on other weights
    print(save_bundle(plain, save(mean), Path(sys.argv[3])).path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
