from .components import in_components as in_components
from .feature_basis import in_feature_basis as in_feature_basis
from .feature_basis import site_named as site_named
from .gated_reading import joined_sites as joined_sites
from .residual import Component as Component
from .residual import ResidualStream as ResidualStream
from .sae import SparseAutoencoder as SparseAutoencoder
from .sae import Transcoder as Transcoder
