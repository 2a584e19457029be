from .export import ExplorerSettings as ExplorerSettings
from .export import Exported as Exported
from .export import export_explorer as export_explorer
from .model_view import view_model as view_model
from .overview import read_curves as read_curves
from .view_files import ClassVectors as ClassVectors
from .view_files import ImageAnswers as ImageAnswers
from .view_files import ModelView as ModelView
