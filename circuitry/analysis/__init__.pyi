from .quickstart_model import QuickstartModel as QuickstartModel
