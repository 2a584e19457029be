from .contact_sheets import contact_sheet as contact_sheet
from .page import Finding as Finding
from .page import Report as Report
from .page import write_results as write_results
from .page import write_tables as write_tables
