from . import figures as figures
from .contact_sheets import contact_sheet as contact_sheet
from .page import Finding as Finding
from .page import Report as Report
from .page import write_results as write_results
from .plots import plot as plot
from .result_tables import write_with_provenance as write_with_provenance
from .run_pages import link_pages as link_pages
