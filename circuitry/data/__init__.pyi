from .batches import load_batches as load_batches
from .captions import caption as caption
from .captions import readable as readable
from .domains import DomainFolder as DomainFolder
from .domains import ImageRecord as ImageRecord
from .images import image_listing as image_listing
from .images import load_image as load_image
