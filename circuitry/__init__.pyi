from .attribution import attribute as attribute
from .baselines import Baseline as Baseline
from .baselines import mean_baseline as mean_baseline
from .circuit import AttributionGraph as AttributionGraph
from .circuit import Circuit as Circuit
from .clip import Clip as Clip
from .clip import load_clip as load_clip
from .data.domains import DomainFolder as DomainFolder
from .encoder import Encoder as Encoder
from .errors import InputError as InputError
from .extraction import GraphFolder as GraphFolder
from .extraction import extract as extract
from .graph_similarity import compare as compare
from .graph_similarity import compare_halves as compare_halves
from .graph_similarity import domain_matrix as domain_matrix
from .graph_similarity import edge_jaccard as edge_jaccard
from .graph_similarity import node_overlap as node_overlap
from .graph_similarity import wl_kernel as wl_kernel
from .metrics import class_logit as class_logit
from .quadrature import QuadratureRule as QuadratureRule
from .quadrature import gauss_legendre_rule as gauss_legendre_rule
from .quadrature import left_rule as left_rule
from .quadrature import midpoint_rule as midpoint_rule

__version__: str
