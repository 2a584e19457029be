from .edges import Edges as Edges
from .effects_of_patches import PatchEffects as PatchEffects
from .images_under_gates import EdgesUnderGates as EdgesUnderGates
from .images_under_gates import Gated as Gated
from .images_under_gates import UnitsUnderGates as UnitsUnderGates
from .patches import Patch as Patch
from .patches import patched as patched
from .patching import patch_effects as patch_effects
